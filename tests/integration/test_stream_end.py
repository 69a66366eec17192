"""How a stream can end: by half-close, and by bytes that are no message."""

import grpc
import pytest
from millrace.v1 import common_pb2, session_pb2

import failures
from raw_session import CHAT, GREEDY, PLAIN, RawSession, budget

# A ConnectRequest whose `append.inputs[0].text` is not UTF-8.
_GOOD = session_pb2.ConnectRequest(append=session_pb2.AppendInput(
    inputs=[common_pb2.Input(text="????")])).SerializeToString()
BAD_TEXT = _GOOD.replace(b"????", b"\xff\xfe\xc3\x28")
TRUNCATED = _GOOD[:-2]
NO_MESSAGE = b"\xff" * 40


class RawBytes:
    """Takes the place of a generated stub: requests are bytes as they are."""

    def __init__(self, channel):
        self._method = channel.stream_stream(
            "/millrace.v1.SessionService/Connect",
            request_serializer=lambda m: m if isinstance(m, bytes)
            else m.SerializeToString(),
            response_deserializer=session_pb2.ConnectResponse.FromString)

    def call(self):
        return self._method()


async def failure(call):
    """How a stream that sends nothing more has ended."""
    with pytest.raises(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pytest.fail("an answer to no message")
        pytest.fail("the stream ended well")
    return failures.of_status(await call.code(), await call.details(),
                              await call.trailing_metadata())


# ---- Half-close ----

async def test_half_close_lets_turns_finish(sessions):
    session = await sessions(format=PLAIN, sampling=GREEDY)
    await session.append("The river")
    seq = await session.generate(stopping=budget(20))
    await session.half_close()
    assert await session.stream_end() is None
    assert (await session.turn(seq)).usage.generated_tokens == 20
    assert session.last("closed").reason == session_pb2.CLOSE_REASON_CLIENT
    assert session.kinds()[-1] == "closed"


async def test_half_close_lets_queued_turns_finish(sessions):
    session = await sessions(format=CHAT, sampling=GREEDY)
    seqs = [await session.append(message=text,
                                 then_generate={"stopping": budget(5)})
            for text in ("One?", "Two?", "Three?")]
    await session.half_close()
    assert await session.stream_end() is None
    for seq in seqs:
        assert (await session.turn(seq)).usage.generated_tokens == 5


async def test_half_close_lets_input_be_read(sessions):
    session = await sessions(format=PLAIN)
    seq = await session.append("word " * 300)
    await session.half_close()
    assert await session.stream_end() is None
    accepted = await session.event("input_accepted", client_seq=seq)
    closed = session.last("closed")
    assert closed.usage.text_position == accepted.tokens


async def test_half_close_without_anything_is_no_session(channel):
    session = RawSession(channel)
    session._start_stream()
    await session.half_close()
    assert await session.stream_end() is None
    assert not session.events


async def test_close_drops_what_is_queued(sessions):
    session = await sessions(format=CHAT, sampling=GREEDY)
    first = await session.append(message="One?", then_generate={})
    await session.event("output")
    second = await session.append(message="Two?", then_generate={})
    await session.close()
    assert [f.reason for f in session.all("turn_finished")] == (
        [common_pb2.FINISH_REASON_INTERRUPTED] * 2)
    assert not session.all("input_accepted", client_seq=second)
    assert session.all("turn_started")[0].started_by == first


# ---- Bytes that are no message ----

@pytest.mark.parametrize("bad", [BAD_TEXT, TRUNCATED, NO_MESSAGE],
                         ids=["invalid UTF-8", "truncated", "noise"])
async def test_malformed_bytes_end_the_stream_not_the_session(channel, bad):
    session = RawSession(channel)
    await session.open(format=PLAIN, sampling=GREEDY)
    await session.append("The river")
    await session.event("input_accepted")
    session.cancel()
    await session.stream_end()

    call = RawBytes(channel).call()
    await call.write(session_pb2.ConnectRequest(
        resume=session_pb2.ResumeSession(
            session_id=session.opened.session_id,
            resume_token=session.opened.resume_token,
            last_sequence_number=session.checker.last_number)))
    response = await call.read()
    assert response.WhichOneof("event") == "resumed"
    session.checker.see(response)
    await call.write(bad)
    ended = await failure(call)
    assert (ended.code, ended.reason) == ("INVALID_ARGUMENT",
                                          "MALFORMED_MESSAGE")

    await session.resume()
    await session.event("resumed")
    seq = await session.generate(stopping=budget(3))
    await session.turn(seq)
    await session.close()


@pytest.mark.parametrize("bad", [BAD_TEXT, TRUNCATED, NO_MESSAGE],
                         ids=["invalid UTF-8", "truncated", "noise"])
async def test_malformed_first_bytes_end_the_stream(channel, bad):
    call = RawBytes(channel).call()
    await call.write(bad)
    ended = await failure(call)
    assert (ended.code, ended.reason) == ("INVALID_ARGUMENT",
                                          "MALFORMED_MESSAGE")
