"""One stream of a session; what grpcio leaves to its callers."""

import asyncio
import contextlib

import grpc

from millrace.errors import from_call


# What grpcio says of a call of which a write has failed (grpc/grpc#36066).
_WRITE_FAILED = "Internal error from Core"


class FinalStatus:
    """The status with which a grpc.aio call ends.

    If a write fails while the status is on its way, grpcio puts an INTERNAL of
    its own in its place. If the status was there before, it is kept here;
    otherwise all that is known is that the stream broke: UNAVAILABLE.

    Attributes:
      error: the status as an AioRpcError, whatever its code; None until the
        call has ended.
    """

    def __init__(self, call):
        self.error = None
        call.add_done_callback(self._note)

    def _note(self, call):
        if self.error is not None:
            return
        code, details = _now(call.code()), _now(call.details())
        if (code, details) == (grpc.StatusCode.INTERNAL, _WRITE_FAILED):
            code = grpc.StatusCode.UNAVAILABLE
            details = "the stream ended while something was sent"
        self.error = grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), _now(call.trailing_metadata()), details)


class Stream:
    """A call of `SessionService.Connect`; one write and one read at a time."""

    def __init__(self, call):
        self._call = call
        self._status = FinalStatus(call)
        # Unlike `call.read`, it goes on to what came before the end.
        self._responses = call.__aiter__()

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
        with contextlib.suppress(grpc.aio.AioRpcError, StopAsyncIteration):
            return await anext(self._responses)
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
