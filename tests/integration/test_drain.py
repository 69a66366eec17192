"""SIGTERM: readiness off, go_away, turns finish, exit 0."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from millrace.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from millrace.v1 import session_pb2

import raw_session
from raw_session import (ENDLESS, GREEDY, PLAIN, RawSession, as_inputs,
                         budget, sinks)

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def connected():
    return lambda server: grpc.aio.insecure_channel(
        server.address, options=raw_session.CHANNEL_OPTIONS)


async def health(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return (await stub.Check(request)).status


async def writing(channel, stopping):
    session = RawSession(channel)
    await session.open(format=PLAIN, sampling=GREEDY)
    seq = await session.append("The river",
                               then_generate={"stopping": stopping})
    await session.event("output")
    return session, seq


async def test_turns_finish_and_it_exits_well(start_server, connected):
    server = start_server()
    async with connected(server) as channel:
        session, seq = await writing(channel, budget(150))
        server.terminate()
        go_away = await session.event("go_away")
        assert go_away.reason == "DRAINING" and not go_away.resumable
        assert go_away.deadline.seconds > 0

        # No new turns, sessions or requests.
        refused = await session.append("more", then_generate={})
        failure = await session.rejected(refused)
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "DRAINING")
        assert failure.retry_after > 0
        failure = await RawSession(channel).open_fails(format=PLAIN)
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "DRAINING")
        assert failure.retry_after > 0 and failure.pushback_ms > 0
        call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(
            inference_pb2.GenerateRequest(inputs=as_inputs("a")))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE

        # Alive, not ready.
        assert await health(channel, "liveness") == SERVING
        assert await health(channel, "readiness") == NOT_SERVING
        async with grpc.aio.insecure_channel(server.health) as probes:
            assert await health(probes, "readiness") == NOT_SERVING
            assert await health(probes, "liveness") == SERVING

        finished = await session.turn(seq)
        assert finished.usage.generated_tokens == 150
        await session.close()
        assert len(session.all("go_away")) == 1
    assert server.wait() == 0


async def test_without_sessions_it_exits_at_once(start_server):
    server = start_server()
    server.terminate()
    assert server.wait() == 0
    assert '"event":"exit"' in server.log()


async def test_a_second_signal_cuts(start_server, connected):
    server = start_server()
    async with connected(server) as channel:
        session, seq = await writing(channel, ENDLESS)
        server.terminate()
        await session.event("go_away")
        server.terminate()
        finished = await session.turn(seq)
        assert finished.reason == common_pb2.FINISH_REASON_DRAINED
        failure = await session.stream_end()
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "DRAINING")
        # What was written until then has arrived.
        assert session.last("closed").reason == (
            session_pb2.CLOSE_REASON_DRAINED)
        assert finished.kept_until == len(session.checker.text)
    assert server.wait() == 0


async def test_the_deadline_cuts(start_server, connected):
    server = start_server("--drain_timeout=500ms")
    async with connected(server) as channel:
        busy, seq = await writing(channel, ENDLESS)
        idle = RawSession(channel)
        await idle.open(format=PLAIN)
        server.terminate()
        assert (await busy.turn(seq)).reason == (
            common_pb2.FINISH_REASON_DRAINED)
        assert (await busy.stream_end()).reason == "DRAINING"
        assert (await idle.stream_end()).reason == "DRAINING"
        assert idle.last("closed").reason == session_pb2.CLOSE_REASON_DRAINED
    assert server.wait() == 0


async def test_during_the_delay_new_work_is_taken(start_server, connected):
    server = start_server("--drain_delay=20s")
    async with connected(server) as channel:
        await channel.channel_ready()
        server.terminate()
        for _ in range(1000):
            if await health(channel, "readiness") == NOT_SERVING:
                break
            await asyncio.sleep(0.01)
        session, seq = await writing(channel, budget(3))
        await session.turn(seq)
        assert not session.all("go_away")
        server.terminate()  # skips the delay
        assert (await session.stream_end()).reason == "DRAINING"
    assert server.wait() == 0


async def test_watchers_are_told_at_once(start_server, connected):
    server = start_server()
    async with connected(server) as channel:
        session, _ = await writing(channel, ENDLESS)
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="readiness"))
        assert (await watch.read()).status == SERVING
        server.terminate()
        assert (await watch.read()).status == NOT_SERVING
        await session.interrupt()
        await session.event("turn_finished")
        await session.close()
    assert server.wait() == 0


async def test_every_one_of_64_streams_is_told(start_server, connected):
    server = start_server()
    async with connected(server) as channel:
        opened = []
        for _ in range(64):
            session = RawSession(channel)
            await session.open(format=PLAIN, sampling=GREEDY,
                               rollback_tokens=0, cache_policy=sinks(4, 20))
            seq = await session.append("The river",
                                       then_generate={"stopping": budget(40)})
            opened.append((session, seq))
        for session, _ in opened:
            await session.event("turn_started")
        server.terminate()
        for session, seq in opened:
            await session.event("go_away")
            assert (await session.turn(seq)).usage.generated_tokens == 40
        await asyncio.gather(*(session.close() for session, _ in opened))
    assert server.wait() == 0
