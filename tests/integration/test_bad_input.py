"""Much, wrong and hostile input: memory stays bounded, the next request is
served. Single wrong values are in test_error_table, bytes that are no message
in test_stream_end, flags and model files in test_start_up."""

import asyncio
import socket

import grpc
import pytest
from millrace.v1 import (control_pb2, control_pb2_grpc, inference_pb2,
                         session_pb2)

import raw_session
from raw_session import (CHAT, GREEDY, PLAIN, RawSession, as_inputs, budget,
                         sinks, still_serves)

MIB = 1 << 20


@pytest.fixture
async def bounded(server, channel, admin):
    """Warms the server up; afterwards it has grown by at most `.mib`."""
    await still_serves(channel)
    before = server.resident_bytes()

    class Bound:
        mib = 64

    yield Bound
    grown = (server.resident_bytes() - before) / MIB
    assert grown < Bound.mib, f"the server has grown by {grown:.0f} MiB"
    await still_serves(channel)


async def test_10_mb_into_a_session(sessions, bounded):
    """Beyond the credit it is refused, piece by piece; nothing is kept."""
    session = await sessions(format=PLAIN, cache_policy=sinks(4, 60))
    piece = "word " * 20_000  # 100 kB
    seqs = [await session.append(piece, after_turn={}) for _ in range(100)]
    await session.until(lambda: len(session.all("input_queued")) +
                        len(session.all("rejected")) == len(seqs))
    reasons = {r.error.reason for r in session.all("rejected")}
    assert reasons == {"INPUT_QUEUE_FULL"}
    queued = len(session.all("input_queued"))
    assert queued * len(piece) <= MIB + len(piece)
    await session.close()


async def test_10_mb_into_pieces_of_one_text(sessions, bounded):
    session = await sessions(format=PLAIN, cache_policy=sinks(4, 60))
    last = None
    for _ in range(100):
        last = await session.append("a" * 100_000, more_follows=True)
    await session.until(lambda: session.find("rejected", client_seq=last))
    reasons = {r.error.reason for r in session.all("rejected")}
    assert "INPUT_QUEUE_FULL" in reasons
    assert reasons <= {"INPUT_QUEUE_FULL", "PREVIOUS_REJECTED"}
    await session.close()


async def test_10_mb_into_score(inference, bounded):
    """It waits in the transport: the server reads as it computes."""
    call = inference.Score()
    await call.write(inference_pb2.ScoreRequest(
        setup=inference_pb2.ScoreSetup(cache_policy=sinks(4, 60))))
    piece = inference_pb2.ScoreRequest(input=as_inputs("word " * 20_000)[0])

    async def write():
        for _ in range(100):
            await call.write(piece)

    writer = asyncio.create_task(write())
    await call.read()  # it computes
    assert not writer.done()
    call.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_one_very_long_word(sessions, bounded):
    session = await sessions(format=PLAIN, cache_policy=sinks(4, 60))
    seq = await session.append("x" * 900_000)
    await session.event("input_queued", client_seq=seq)
    await session.close()


@pytest.mark.parametrize("text", [
    " " * 200_000, "\n" * 200_000, "'" * 200_000, "\u0301" * 100_000,
    "1" * 200_000, "aA" * 100_000, "🙂" * 50_000, "<|im_start|>" * 10_000],
    ids=["spaces", "lines", "quotes", "accents", "digits", "cases", "emoji",
         "special tokens"])
async def test_texts_that_are_hard_to_tokenise(inference, bounded, text):
    response = await inference.Tokenize(
        inference_pb2.TokenizeRequest(inputs=as_inputs(text)), timeout=30)
    assert response.token_ids


async def test_a_thousand_opens_that_are_never_read(server, bounded):
    """They get what there is; the rest is refused."""
    bounded.mib = 192
    async with grpc.aio.insecure_channel(
            server.address, options=raw_session.CHANNEL_OPTIONS) as channel:
        opens = []
        for _ in range(1000):
            session = RawSession(channel)
            session.stop_reading()
            session._start_stream()
            opens.append(asyncio.create_task(session.send(
                open=session_pb2.OpenSession(
                    format=PLAIN, detach_timeout={"seconds": 0},
                    cache_policy=sinks(4, 60), rollback_tokens=0))))
            opens.append(session._reader)
        await asyncio.wait(opens, timeout=5)
        for task in opens:
            task.cancel()
        await asyncio.gather(*opens, return_exceptions=True)


async def test_clients_that_vanish_in_mid_turn(server, channel, bounded):
    for _ in range(20):
        async with grpc.aio.insecure_channel(
                server.address,
                options=raw_session.CHANNEL_OPTIONS) as passing:
            session = RawSession(passing)
            await session.open(format=CHAT,
                               detach_timeout={"seconds": 0})
            await session.append(message="Count to a million.",
                                 then_generate={})
            await session.event("turn_started")
        await session.drop()


@pytest.mark.parametrize("sent", [
    b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200, b"\x00" * 10_000],
    ids=["nothing", "HTTP/1.1", "TLS", "bad frames", "zeros"])
@pytest.mark.parametrize("listener", ["address", "health", "admin",
                                      "metrics"])
async def test_bytes_that_are_no_call(server, bounded, listener, sent):
    host, port = getattr(server, listener).rsplit(":", 1)
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(sent)


async def test_metadata_beyond_its_limit(server, channel):
    """gRPC may give up the connection with it, so it has its own."""
    async with grpc.aio.insecure_channel(
            server.address, options=raw_session.CHANNEL_OPTIONS) as hostile:
        control = control_pb2_grpc.ControlServiceStub(hostile)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await control.GetLoad(control_pb2.GetLoadRequest(),
                                  metadata=[("x-long", "x" * 20_000)])
        assert error.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED,
                                      grpc.StatusCode.UNAVAILABLE)
    await still_serves(channel)


async def test_logs_never_hold_text(server, sessions):
    session = await sessions(format=PLAIN, client_tag="tag-qwertz",
                             system_prompt="prompt-qwertz", sampling=GREEDY)
    seq = await session.append("input-qwertz",
                               then_generate={"stopping": budget(5)})
    await session.turn(seq)
    await session.rejected(await session.append(ids=[10**6]))
    token = session.opened.resume_token
    await session.close()
    assert "qwertz" not in server.log()
    assert token not in server.log()
    assert session.opened.session_id not in server.log()
