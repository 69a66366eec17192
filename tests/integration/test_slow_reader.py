"""A client that does not read holds up itself and nobody else."""

import time

import grpc
import millraced
import pytest
from millrace.v1 import (admin_pb2, common_pb2, control_pb2,
                         control_pb2_grpc)

import exposition
import raw_session
from raw_session import GREEDY, PLAIN, RawSession, budget

# Much output for each token, and little room for it.
RICH = {"logprobs": 20}
TOKENS = 400
IDLE = common_pb2.SESSION_STATE_IDLE
PAUSED = common_pb2.SESSION_STATE_PAUSED
DETACHED = common_pb2.SESSION_STATE_DETACHED


@pytest.fixture(scope="module")
def server():
    with millraced.running("--outbound_queue_bytes=4KiB") as process:
        yield process


async def count(control, state):
    load = await control.GetLoad(control_pb2.GetLoadRequest())
    return sum(c.sessions for c in load.sessions if c.state == state)


async def in_state(control, state, sessions=1):
    """Waits until so many sessions are in the state."""
    deadline = time.monotonic() + 60
    while await count(control, state) != sessions:
        assert time.monotonic() < deadline, "the state never came"


async def starts_writing(session, tokens=TOKENS):
    await session.append("The river")
    return await session.generate(stopping=budget(tokens), response=RICH)


@pytest.fixture
def own_channel(server):
    """Channels do not share a connection, so neither do their windows."""
    return lambda: grpc.aio.insecure_channel(
        server.address, options=raw_session.CHANNEL_OPTIONS)


async def test_pauses_and_goes_on_and_drops_nothing(sessions, control, server,
                                                    own_channel):
    async with own_channel() as channel:
        reader = await sessions(channel, format=PLAIN, sampling=GREEDY)
        await reader.turn(await starts_writing(reader))
        slow = await sessions(channel, format=PLAIN, sampling=GREEDY)
        slow.stop_reading()
        seq = await starts_writing(slow)
        await in_state(control, PAUSED)
        assert not slow.all("turn_finished")
        slow.read_on()
        await slow.turn(seq)
        assert slow.ids() == reader.ids()
    assert exposition.total(server, "millrace_stream_paused_total") >= 1


async def test_others_write_while_one_is_paused(sessions, control,
                                                own_channel):
    async with own_channel() as channel:
        slow = await sessions(channel, format=PLAIN, sampling=GREEDY)
        slow.stop_reading()
        seq = await starts_writing(slow)
        await in_state(control, PAUSED)
        for _ in range(3):
            other = await sessions(format=PLAIN, sampling=GREEDY)
            await other.turn(await starts_writing(other, 50))
            assert len(other.ids()) == 50
        assert await count(control, PAUSED) == 1
        slow.read_on()
        await slow.turn(seq)
        assert len(slow.ids()) == TOKENS


async def test_a_paused_session_can_be_interrupted(sessions, control,
                                                   own_channel):
    """The server reads what a client says that does not read."""
    async with own_channel() as channel:
        slow = await sessions(channel, format=PLAIN, sampling=GREEDY)
        slow.stop_reading()
        seq = await starts_writing(slow, 10**6)
        await in_state(control, PAUSED)
        await slow.interrupt()
        await in_state(control, PAUSED, 0)
        slow.read_on()
        finished = await slow.turn(seq)
        assert finished.reason == common_pb2.FINISH_REASON_INTERRUPTED
        await slow.close()


async def test_what_waits_for_a_slow_reader_is_bounded(sessions, control,
                                                       admin, own_channel):
    async with own_channel() as channel:
        slow = await sessions(channel, format=PLAIN, sampling=GREEDY)
        slow.stop_reading()
        await starts_writing(slow, 10**6)
        await in_state(control, PAUSED)
        info = (await admin.GetSession(admin_pb2.GetSessionRequest(
            session_id=slow.opened.session_id))).session
        assert info.state == PAUSED
        # At most one token's output over the limit.
        assert 4096 <= info.unread_bytes < 4096 + 1024


async def test_unread_answers_end_the_stream(sessions, server, own_channel):
    """1,024 of them: a client that only speaks. Its session can be resumed."""
    async with own_channel() as channel:
        session = await sessions(channel, format=PLAIN)
        session.stop_reading()
        # Beyond 1,024, what the transport holds is out of the server's sight.
        for _ in range(8000):
            await session.interrupt()
            if session.call.done():
                break
        session.read_on()
        failure = await session.stream_end()
        assert (failure.code, failure.reason) == ("ABORTED", "SLOW_CONSUMER")
    async with own_channel() as channel:
        await session.resume(channel)
        resumed = await session.event("resumed")
        assert resumed.state == IDLE
    assert exposition.total(server,
                            "millrace_slow_consumer_closed_total") == 1


async def test_a_reader_that_is_slow_for_too_long_is_detached(start_server):
    server = start_server("--outbound_queue_bytes=4KiB",
                          "--slow_reader_timeout=500ms")
    async with grpc.aio.insecure_channel(
            server.address, options=raw_session.CHANNEL_OPTIONS) as channel:
        slow = RawSession(channel)
        await slow.open(format=PLAIN, sampling=GREEDY)
        slow.stop_reading()
        await starts_writing(slow, 10**6)
        control = control_pb2_grpc.ControlServiceStub(channel)
        await in_state(control, DETACHED)
        slow.read_on()
        failure = await slow.stream_end()
        assert failure.reason == "SLOW_CONSUMER"
        await slow.drop()
