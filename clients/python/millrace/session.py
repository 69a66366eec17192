"""One endless session over one stream, which is renewed when it breaks."""

import asyncio
import collections
import contextlib
import dataclasses

import grpc

from millrace.errors import MillraceError, code_name
from millrace.stream import Stream
from millrace.v1 import common_pb2, session_pb2, session_pb2_grpc

# Events that wait for `chat` or `events` to take them; beyond that the client
# stops reading, and the server pauses the session until it goes on.
_MAX_WAITING_EVENTS = 1024

_FIRST_PAUSE = 0.05  # seconds before the first attempt to resume; then doubled
_LONGEST_PAUSE = 2


@dataclasses.dataclass(frozen=True)
class Event:
    """What the server says.

    Attributes:
      kind: the arm of `ConnectResponse.event`, such as "output".
      message: the message in that arm, a generated class of millrace.v1.
      sequence_number: 1, 2, 3, ... over the life of the session.
    """

    kind: str
    message: object
    sequence_number: int

    @property
    def text(self):
        """What the model wrote; empty for other events."""
        return self.message.text if self.kind == "output" else ""


@contextlib.asynccontextmanager
async def connect(address, *, token=None, root_certificates=None, **options):
    """Opens a session and closes it at the end of the block.

    Args:
      address: "host:port".
      token: the server's bearer token, if it wants one.
      root_certificates: PEM bytes; given, the connection is encrypted.
      **options: fields of `OpenSession`, messages as dicts:
        system_prompt="Be brief.", cache_policy={"sinks": {"sink_tokens": 4}},
        sampling={"temperature": 0}, stopping={"max_tokens": 100}.

    Raises:
      MillraceError: the server refused the session, or cannot be reached.
    """
    if root_certificates is None:
        channel = grpc.aio.insecure_channel(address)
    else:
        channel = grpc.aio.secure_channel(
            address, grpc.ssl_channel_credentials(root_certificates))
    metadata = [("authorization", f"Bearer {token}")] if token else []
    async with channel:
        session = Session(session_pb2_grpc.SessionServiceStub(channel),
                          metadata)
        await session._open(session_pb2.OpenSession(**options))
        try:
            yield session
        finally:
            await session.close()


class Session:
    """An open session; made by `connect`.

    Messages may be sent at any moment, also while the model writes: run
    `append` in another task, or between two events. Answers that come back
    refused raise MillraceError and change nothing. A lost connection is taken
    up again, and what the server has not heard is sent again.

    Attributes:
      opened: the server's `SessionOpened`: ids, effective options, limits.
      text_position: tokens of the text so far, as the last event told.
    """

    def __init__(self, stub, metadata, resume_attempts=7):
        self.opened = None
        self.text_position = 0
        self._stub = stub
        self._metadata = metadata
        self._resume_attempts = resume_attempts
        self._attempts = 0  # to resume, since something was read
        self._stream = None
        # Messages go out in their order, and none while a stream is renewed.
        self._sending = asyncio.Lock()
        self._senders = 0  # that hold the lock or wait for it
        self._renewing = False  # the reader holds the lock
        self._last_event = 0
        self._last_sent = 0
        self._unanswered = {}  # client_seq -> (request, future)
        self._started_by = {}  # turn -> client_seq, of the last turns
        self._waiting = collections.deque()
        self._changed = asyncio.Condition()
        self._takers = 0
        self._ended = None  # the exception that ends the session
        self._reader = None

    # ---- Sending ----

    async def append(self, text=None, *, message=None, role="ROLE_USER",
                     token_ids=None, **fields):
        """Adds input: plain text, a chat message, or token ids.

        While the model writes, text and ids go in before its next token, and
        messages wait until the turn is over. Further fields are those of
        `AppendInput`. Returns `InputQueued` once the server has it.
        """
        inputs = []
        if text is not None:
            inputs.append(common_pb2.Input(text=text))
        if message is not None:
            inputs.append(common_pb2.Input(message=common_pb2.ChatMessage(
                role=role, text=message)))
        if token_ids is not None:
            inputs.append(common_pb2.Input(
                token_ids=common_pb2.TokenIds(ids=token_ids)))
        return await self._ask(
            append=session_pb2.AppendInput(inputs=inputs, **fields))

    async def chat(self, message, **turn):
        """Sends a message of the user and yields the events of the reply.

        The last one is "turn_finished". Keyword arguments are those of
        `StartTurn`. While this runs, other events are yielded here too.
        """
        append = session_pb2.AppendInput(
            inputs=[common_pb2.Input(message=common_pb2.ChatMessage(
                role="ROLE_USER", text=message))],
            then_generate=session_pb2.StartTurn(**turn))
        async for event in self._turn(append=append):
            yield event

    async def generate(self, **turn):
        """Lets the model go on, and yields events up to "turn_finished"."""
        async for event in self._turn(generate=session_pb2.StartTurn(**turn)):
            yield event

    async def interrupt(self, **fields):
        """Ends the running turn; fields are those of `Interrupt`.

        Returns `TurnFinished` of the turn. What was written stays.
        """
        return await self._ask(interrupt=session_pb2.Interrupt(**fields))

    async def update(self, **options):
        """Changes options from the next turn on; returns `OptionsUpdated`."""
        return await self._ask(update=session_pb2.UpdateOptions(**options))

    async def reset(self):
        """Forgets the text; the system prompt stays."""
        return await self._ask(reset=session_pb2.ResetSession())

    async def close(self):
        """Ends the session; what is queued is dropped."""
        try:
            if self._ended is None:
                with contextlib.suppress(MillraceError):
                    await self._ask(close=session_pb2.CloseSession())
        finally:
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
            self._stream.cancel()

    # ---- Receiving ----

    async def events(self):
        """Yields every event from now on, until the session ends.

        An event is yielded once: beside a running `chat` each gets some.
        """
        async with self._taking():
            while (event := await self._next()) is not None:
                yield event

    async def _turn(self, **arm):
        async with self._taking():
            seq, answer = await self._send(**arm)
            while True:
                event = await self._next(answer)
                if event is None:
                    if answer.done():
                        answer.result()
                    return
                yield event
                # One that never started is not known, and may be ours.
                if (event.kind == "turn_finished" and
                        self._started_by.get(event.message.turn, seq) == seq):
                    return

    @contextlib.asynccontextmanager
    async def _taking(self):
        self._takers += 1
        try:
            yield
        finally:
            self._takers -= 1
            if not self._takers:
                self._waiting.clear()
            await self._notify()

    async def _next(self, answer=None):
        """The next event; None if the session ended or `answer` refused."""
        def refused():
            return (answer is not None and answer.done() and
                    answer.exception() is not None)

        async with self._changed:
            await self._changed.wait_for(
                lambda: self._waiting or self._ended or refused())
            if refused() or not self._waiting:
                if self._ended and not isinstance(self._ended, _Closed):
                    raise self._ended
                return None
            event = self._waiting.popleft()
            self._changed.notify_all()
            return event

    # ---- The stream ----

    async def _open(self, options):
        self._last_sent = 1
        self._start_stream()
        await self._stream.write(
            session_pb2.ConnectRequest(client_seq=1, open=options))
        first = await self._stream.read()
        if first is None:
            raise MillraceError("OK", "", "the stream ended at once")
        self._take(first)
        self._reader = asyncio.create_task(self._read())

    def _start_stream(self):
        self._stream = Stream(self._stub.Connect(metadata=self._metadata))

    async def _ask(self, **arm):
        _, answer = await self._send(**arm)
        return await answer

    async def _send(self, **arm):
        answer = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or
                                 done.exception())
        # A write that is cancelled would end the stream.
        return await asyncio.shield(self._write(answer, arm)), answer

    async def _write(self, answer, arm):
        self._senders += 1
        await self._notify()
        try:
            async with self._sending:
                if self._ended is not None:
                    raise self._ended
                self._last_sent += 1
                request = session_pb2.ConnectRequest(
                    client_seq=self._last_sent, **arm)
                self._unanswered[request.client_seq] = (request, answer)
                # If it is lost, it is sent again on the next stream.
                await self._stream.write(request)
                return request.client_seq
        finally:
            self._senders -= 1

    async def _notify(self):
        async with self._changed:
            self._changed.notify_all()

    async def _read(self):
        error = _Closed("CANCELLED", "", "the session is closed")
        try:
            while self._ended is None:
                response = await self._read_one()
                if response is None:
                    break
                await self._deliver(response)
                if response.WhichOneof("event") == "resumed":
                    await self._resend()
        except MillraceError as failed:
            error = failed
        finally:
            await self._end(error)

    async def _read_one(self):
        while True:
            try:
                response = await self._stream.read()
                self._attempts = 0
                return response
            except MillraceError as failed:
                if (failed.code != "UNAVAILABLE" or failed.reason or
                        self._attempts == self._resume_attempts):
                    raise
            await self._resume()

    async def _resume(self):
        """Asks for the session on a new stream; `resumed` will answer."""
        if not self._renewing:
            await self._sending.acquire()
            self._renewing = True
        await asyncio.sleep(min(_FIRST_PAUSE * 2**self._attempts,
                                _LONGEST_PAUSE))
        self._attempts += 1
        self._start_stream()
        await self._stream.write(session_pb2.ConnectRequest(
            resume=session_pb2.ResumeSession(
                session_id=self.opened.session_id,
                resume_token=self.opened.resume_token,
                last_sequence_number=self._last_event)))

    async def _resend(self):
        """Sends what the events before `resumed` have not answered."""
        for request, _ in list(self._unanswered.values()):
            await self._stream.write(request)
        self._end_renewing()

    def _end_renewing(self):
        if self._renewing:
            self._renewing = False
            self._sending.release()

    async def _deliver(self, response):
        event = self._take(response)
        if event is None:
            return
        async with self._changed:
            if self._takers:
                # Whoever takes may be the one who sends, or awaits an answer:
                # reading must go on.
                await self._changed.wait_for(
                    lambda: len(self._waiting) < _MAX_WAITING_EVENTS or
                    self._senders or self._unanswered or not self._takers)
                self._waiting.append(event)
            self._changed.notify_all()

    def _take(self, response):
        kind = response.WhichOneof("event")
        if kind is None or kind == "heartbeat":
            return None
        message = getattr(response, kind)
        self._last_event = response.sequence_number
        if kind == "turn_started":
            self._started_by[message.turn] = message.started_by
            if len(self._started_by) > _MAX_WAITING_EVENTS:
                del self._started_by[next(iter(self._started_by))]
        self._note_position(kind, message)
        self._answer(kind, message)
        return Event(kind, message, response.sequence_number)

    def _note_position(self, kind, message):
        if kind == "opened":
            self.opened = message
            self.text_position = len(message.system_token_ids)
        elif kind == "output":
            self.text_position = (message.text_position +
                                  len(message.token_ids))
        elif kind == "turn_finished":
            self.text_position = message.usage.text_position
        elif kind in ("cache_update", "resumed"):
            self.text_position = message.text_position
        elif kind == "input_accepted":
            self.text_position = message.text_position + message.tokens

    def _answer(self, kind, message):
        """Resolves the message of ours that this event answers."""
        if kind in ("input_queued", "rejected"):
            seq = message.client_seq
        elif kind == "turn_started":
            seq = message.started_by
        else:
            arms = {"options_updated": ("update", "reset"),
                    "closed": ("close",),
                    "turn_finished": ("interrupt",)}.get(kind, ())
            seq = next((s for s, (request, _) in self._unanswered.items()
                        if request.WhichOneof("message") in arms), None)
        _, answer = self._unanswered.pop(seq, (None, None))
        if answer is None or answer.done():
            return
        if kind == "rejected":
            answer.set_exception(MillraceError(
                code_name(message.error.code), message.error.reason,
                message.error.message))
        else:
            answer.set_result(message)

    async def _end(self, error):
        self._end_renewing()
        async with self._changed:
            if self._ended is None:
                self._ended = error
                for _, answer in self._unanswered.values():
                    if not answer.done():
                        answer.set_exception(error)
                self._unanswered.clear()
            self._changed.notify_all()


class _Closed(MillraceError):
    """The session ended in good order."""
