"""A TCP proxy that can cut its connections, as a network does.

    async with CuttingProxy(server.address) as proxy:
        channel = grpc.aio.insecure_channel(proxy.address)
        proxy.cut_after(2000)    # bytes from the server, from now on
        proxy.cut()              # at once
"""

import asyncio


class CuttingProxy:
    """Cut connections are aborted; new ones go through."""

    def __init__(self, address):
        self._host, port = address.rsplit(":", 1)
        self._port = int(port)
        self._writers = set()
        self._tasks = set()
        self._left = None  # bytes until the cut

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % (
            self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self):
        self._left = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut_after(self, server_bytes):
        self._left = server_bytes

    async def _serve(self, reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection(
                self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        for task in (self._pump(reader, server_writer, False),
                     self._pump(server_reader, writer, True)):
            task = asyncio.create_task(task)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader, writer, from_server):
        try:
            while data := await reader.read(4096):
                if from_server and self._left is not None:
                    data = data[:self._left]
                    self._left -= len(data)
                writer.write(data)
                await writer.drain()
                if from_server and self._left == 0:
                    self.cut()
        except (OSError, ConnectionError):
            pass
        finally:
            writer.close()
