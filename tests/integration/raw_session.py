"""A session over the generated stubs: nothing is hidden or repaired.

    session = RawSession(channel)
    await session.open(format=PLAIN, sampling=GREEDY)
    seq = await session.append("Once", then_generate={})
    finished = await session.event("turn_finished")
    await session.close()

Every event passes the checker. `event` finds the first event that has the
fields, past or to come, so tests need not be quick.
"""

import asyncio

import grpc
from millrace.stream import FinalStatus
from millrace.v1 import common_pb2, session_pb2, session_pb2_grpc

import failures
from checker import Checker

CHAT = session_pb2.FORMAT_CHAT
PLAIN = session_pb2.FORMAT_PLAIN
GREEDY = {"temperature": 0}
PATIENCE = 60  # seconds until a test that waits in vain fails

# One connection for each channel, and flow control windows that do not grow.
CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 16384),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
]


def budget(tokens):
    """StoppingOptions of a turn that writes exactly so many tokens."""
    return {"max_tokens": tokens, "ignore_end_of_turn": True,
            "repetition_guard": 0}


ENDLESS = {"unlimited": {}, "ignore_end_of_turn": True, "repetition_guard": 0}


async def open_plain(sessions, policy, **fields):
    """A session that writes greedily and tells of every eviction at once."""
    return await sessions(format=PLAIN, sampling=GREEDY, cache_policy=policy,
                          response={"cache_update_interval_tokens": 1},
                          **fields)


def sinks(sink_tokens, window_tokens, **more):
    return {"sinks": {"sink_tokens": sink_tokens,
                      "window_tokens": window_tokens, **more}}


def as_inputs(text=None, message=None, ids=None, role="ROLE_USER"):
    inputs = []
    if text is not None:
        inputs.append(common_pb2.Input(text=text))
    if message is not None:
        inputs.append(common_pb2.Input(
            message=common_pb2.ChatMessage(role=role, text=message)))
    if ids is not None:
        inputs.append(common_pb2.Input(token_ids=common_pb2.TokenIds(ids=ids)))
    return inputs


class RawSession:
    """One session; perhaps over several streams, one after the other.

    Attributes:
      events: all responses but heartbeats, in order.
      opened: the SessionOpened.
      checker: what is known of the text.
    """

    def __init__(self, channel, metadata=()):
        self.events = []
        self.opened = None
        self.checker = Checker()
        self.call = None
        self.failure = None  # of the last stream that ended
        self._channel = channel
        self._metadata = list(metadata)
        self._seq = 0
        self._changed = asyncio.Condition()
        self._reader = None
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._broken = None  # what the checker found

    # ---- The stream ----

    async def open(self, **fields):
        """Opens; returns SessionOpened, or raises AssertionError."""
        self._start_stream()
        await self.send(open=session_pb2.OpenSession(**fields))
        self.opened = await self.event("opened")
        return self.opened

    async def open_fails(self, **fields):
        """The Failure of an open that must be refused."""
        self._start_stream()
        await self.send(open=session_pb2.OpenSession(**fields))
        failure = await self.stream_end()
        assert failure is not None and not self.events
        return failure

    async def resume(self, channel=None, last=None, **fields):
        """Takes the session up on a new stream; does not wait."""
        if channel is not None:
            self._channel = channel
        self._start_stream()
        await self.send(client_seq=None, resume=session_pb2.ResumeSession(**{
            "session_id": self.opened.session_id,
            "resume_token": self.opened.resume_token,
            "last_sequence_number":
                self.checker.last_number if last is None else last,
            **fields}))

    def _start_stream(self):
        stub = session_pb2_grpc.SessionServiceStub(self._channel)
        self.call = stub.Connect(metadata=self._metadata)
        self.failure = None
        self._reader = asyncio.create_task(
            self._read(self.call, FinalStatus(self.call)))

    async def _read(self, call, status):
        try:
            while True:
                await self._may_read.wait()
                response = await call.read()
                if response is grpc.aio.EOF:
                    break
                await self._take(response)
        except grpc.aio.AioRpcError:
            pass
        except asyncio.CancelledError:
            if not call.done():
                raise
        async with self._changed:
            if call is self.call:
                await call.code()
                self.failure = failures.of_call(status.error)
            self._changed.notify_all()

    async def _take(self, response):
        async with self._changed:
            try:
                self.checker.see(response)
            except AssertionError as broken:
                self._broken = self._broken or broken
            if response.WhichOneof("event") != "heartbeat":
                self.events.append(response)
            self._changed.notify_all()

    def stop_reading(self):
        self._may_read.clear()

    def read_on(self):
        self._may_read.set()

    async def half_close(self):
        await self.call.done_writing()

    def cancel(self):
        self.call.cancel()

    async def stream_end(self):
        """Waits for the end of the stream: None for OK, else its Failure."""
        await asyncio.wait_for(asyncio.shield(self._reader), PATIENCE)
        self.check()
        return self.failure

    # ---- What is said ----

    async def send(self, client_seq=0, **arm):
        """Sends a message, the next one unless a number is given."""
        if client_seq == 0:
            self._seq += 1
            client_seq = self._seq
        request = session_pb2.ConnectRequest(client_seq=client_seq, **arm)
        if client_seq is not None:
            self.checker.sent(request)
        try:
            await self.call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError,
                grpc.aio.UsageError):
            pass  # the stream's end tells why
        return client_seq

    async def append(self, text=None, message=None, ids=None,
                     role="ROLE_USER", **fields):
        return await self.send(append=session_pb2.AppendInput(
            inputs=as_inputs(text, message, ids, role), **fields))

    async def generate(self, **fields):
        return await self.send(generate=session_pb2.StartTurn(**fields))

    async def interrupt(self, **fields):
        return await self.send(interrupt=session_pb2.Interrupt(**fields))

    async def update(self, **fields):
        return await self.send(update=session_pb2.UpdateOptions(**fields))

    async def reset(self):
        return await self.send(reset=session_pb2.ResetSession())

    async def close(self):
        """Closes; returns SessionClosed once the stream has ended well."""
        await self.send(close=session_pb2.CloseSession())
        assert await self.stream_end() is None
        return self.last("closed")

    # ---- What is answered ----

    async def event(self, kind, patience=PATIENCE, **fields):
        """The first event of the kind whose fields have these values."""
        await self.until(lambda: self.find(kind, **fields) is not None,
                         f"{kind} {fields}", patience)
        return self.find(kind, **fields)

    async def until(self, condition, what="what the test waits for",
                    patience=PATIENCE):
        """Waits until a condition on this session is true."""
        def over():
            return condition() or self._broken or self._reader.done()

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(over), patience)
            except asyncio.TimeoutError:
                raise AssertionError(
                    f"{what} never came; the last events are "
                    f"{self.events[-5:]}") from None
        self.check()
        assert condition(), (
            f"{what} never came; the stream ended: {self.failure}")

    async def position(self, tokens):
        """Waits until the text is that long."""
        await self.until(lambda: len(self.checker.text) >= tokens,
                         f"text position {tokens}")

    async def turn(self, seq):
        """TurnFinished of the turn that message `seq` started."""
        started = await self.event("turn_started", started_by=seq)
        return await self.event("turn_finished", turn=started.turn)

    async def rejected(self, seq):
        """The Failure with which message `seq` was refused."""
        return failures.of_message((await self.event("rejected",
                                                   client_seq=seq)).error)

    def find(self, kind, **fields):
        return next(iter(self.all(kind, **fields)), None)

    def last(self, kind, **fields):
        return self.all(kind, **fields)[-1]

    def all(self, kind, **fields):
        messages = [getattr(e, kind) for e in self.events
                    if e.WhichOneof("event") == kind]
        return [m for m in messages
                if all(getattr(m, k) == v for k, v in fields.items())]

    def kinds(self):
        return [e.WhichOneof("event") for e in self.events]

    def ids(self, turn=None):
        """The tokens that were written, in one turn or in all."""
        return [i for o in self.all("output") for i in o.token_ids
                if turn in (None, o.turn)]

    def text(self, turn=None):
        return "".join(o.text for o in self.all("output")
                       if turn in (None, o.turn))

    def check(self):
        """Raises what the checker has found."""
        if self._broken is not None:
            raise self._broken

    async def drop(self):
        """Ends the test's side, whatever state it is in."""
        self.read_on()
        if self.call is not None:
            self.call.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


async def still_serves(channel):
    """The next request is answered as if nothing had been."""
    session = RawSession(channel)
    await session.open(format=PLAIN, sampling=GREEDY)
    seq = await session.append("The river",
                               then_generate={"stopping": budget(2)})
    await session.turn(seq)
    await session.close()
