"""One stream of a session; what grpcio leaves to its callers."""

import asyncio
import contextlib

import grpc

from millrace.errors import from_call


class FinalStatus:
    """The status with which a grpc.aio call ends.

    If a write fails while the status is on its way, grpcio replaces the status
    with INTERNAL "Internal error from Core" (grpc/grpc#36066). It tells
    callbacks before it does so.

    Attributes:
      error: the status as an AioRpcError, whatever its code; None until the
        call has ended.
    """

    def __init__(self, call):
        self.error = None
        call.add_done_callback(self._note)

    def _note(self, call):
        if self.error is None:
            self.error = grpc.aio.AioRpcError(
                _now(call.code()), grpc.aio.Metadata(),
                _now(call.trailing_metadata()), _now(call.details()))


class Stream:
    """A call of `SessionService.Connect`; one write and one read at a time."""

    def __init__(self, call):
        self._call = call
        self._status = FinalStatus(call)

    async def write(self, request):
        """Sends, or does nothing if the stream has ended: `read` tells why."""
        with contextlib.suppress(grpc.aio.AioRpcError,
                                 asyncio.InvalidStateError):
            await self._call.write(request)

    async def read(self):
        """The next message; None after the last one.

        Raises:
          MillraceError: the stream ended with another status than OK.
        """
        with contextlib.suppress(grpc.aio.AioRpcError):
            response = await self._call.read()
            if response is not grpc.aio.EOF:
                return response
        await self._call.code()
        if self._status.error.code() == grpc.StatusCode.OK:
            return None
        raise from_call(self._status.error)

    def cancel(self):
        self._call.cancel()


def _now(coroutine):
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise RuntimeError("the call has not ended")
