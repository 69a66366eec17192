"""Calls that are cut off anywhere leave nothing behind."""

import asyncio
import random

import grpc
import pytest
from google.protobuf import duration_pb2
from millrace.v1 import control_pb2, inference_pb2, inference_pb2_grpc

import raw_session
from raw_session import ENDLESS, GREEDY, PLAIN, as_inputs, sinks

AT_ONCE = 8
NO_WAIT = duration_pb2.Duration()


async def connect(channel, dice):
    session = raw_session.RawSession(channel)
    try:
        await session.open(format=PLAIN, sampling=GREEDY,
                           detach_timeout=NO_WAIT, cache_policy=sinks(4, 60))
        await session.append("word " * dice.randrange(1, 150))
        await session.generate(stopping=ENDLESS)
        await session.stream_end()
    finally:
        await session.drop()


async def generate(channel, dice):
    call = stub(channel).Generate(inference_pb2.GenerateRequest(
        inputs=as_inputs("word " * dice.randrange(1, 150)),
        cache_policy=sinks(4, 60), stopping=ENDLESS))
    try:
        async for _ in call:
            pass
    finally:
        call.cancel()


async def score(channel, dice):
    call = stub(channel).Score()
    try:
        await call.write(inference_pb2.ScoreRequest(
            setup=inference_pb2.ScoreSetup(cache_policy=sinks(4, 60))))
        while True:
            await call.write(inference_pb2.ScoreRequest(
                input=as_inputs("word " * dice.randrange(1, 150))[0]))
            await call.read()
    finally:
        call.cancel()


def stub(channel):
    return inference_pb2_grpc.InferenceServiceStub(channel)


async def cut_off(channel, dice):
    """One call, cancelled after a time that is anybody's guess."""
    call = dice.choice([connect, connect, generate, score])
    task = asyncio.create_task(call(channel, dice))
    await asyncio.sleep(dice.choice([0, dice.random() * 0.02,
                                     dice.random() * 0.3]))
    while not task.done():  # asyncio may lose a cancellation to a result
        task.cancel()
        await asyncio.wait([task], timeout=1)
    results = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(results[0], (asyncio.CancelledError,
                                   grpc.aio.AioRpcError)), results


class Baseline:
    """What the server holds, apart from connections that stay open."""

    def __init__(self, server, control):
        self._server = server
        self._control = control

    async def read(self):
        load = await self._control.GetLoad(control_pb2.GetLoadRequest())
        return {
            "reserved blocks": load.reserved_blocks,
            "used blocks": load.used_blocks,
            "sessions": sum(c.sessions for c in load.sessions),
            "running": load.running_requests,
            "waiting": load.waiting_requests,
            "threads": self._server.threads(),
            "descriptors": self._server.descriptors(),
        }

    async def settles_at(self, expected):
        """Waits until nothing is above what is expected."""
        for _ in range(600):
            now = await self.read()
            if all(now[key] <= expected[key] for key in expected):
                return
            await asyncio.sleep(0.05)
        assert now == expected


async def storm(channel, dice, calls):
    places = asyncio.Semaphore(AT_ONCE)

    async def one(seed):
        async with places:
            await cut_off(channel, random.Random(seed))

    await asyncio.gather(*(one(dice.random()) for _ in range(calls)))


async def test_cancel_at_random_points(server, channel, control, full):
    baseline = Baseline(server, control)
    # gRPC makes its threads when they are first needed.
    await storm(channel, random.Random(0), 2 * AT_ONCE)
    await baseline.settles_at({"sessions": 0, "running": 0})
    before = await baseline.read()
    assert before["reserved blocks"] == before["used blocks"] == 0
    await storm(channel, random.Random(1), 1000 if full else 100)
    # Threads come and go by a few in gRPC's pool; a leak would be 100.
    await baseline.settles_at({**before, "threads": before["threads"] + 8})


async def vanish(server, times):
    """Connections that are closed under a session that writes."""
    for _ in range(times):
        async with grpc.aio.insecure_channel(
                server.address,
                options=raw_session.CHANNEL_OPTIONS) as passing:
            session = raw_session.RawSession(passing)
            await session.open(format=PLAIN, detach_timeout=NO_WAIT)
            await session.append("word " * 50)
            await session.generate(stopping=ENDLESS)
        await session.drop()


async def test_connections_that_vanish_leave_no_descriptor(server, control):
    baseline = Baseline(server, control)
    await vanish(server, 5)
    await baseline.settles_at({"sessions": 0, "reserved blocks": 0})
    before = await baseline.read()
    await vanish(server, 30)
    # As with threads, gRPC has a few of its own that come and go.
    await baseline.settles_at({**before, "threads": before["threads"] + 8,
                               "descriptors": before["descriptors"] + 4})


@pytest.mark.parametrize("kind", ["deadline", "cancel"])
async def test_a_generate_that_is_over_stops_computing(inference, control,
                                                       kind):
    call = inference.Generate(
        inference_pb2.GenerateRequest(inputs=as_inputs("The river"),
                                      cache_policy=sinks(4, 60),
                                      stopping=ENDLESS),
        timeout=1.0 if kind == "deadline" else None)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        async for response in call:
            if kind == "cancel" and response.HasField("output"):
                call.cancel()
    assert await call.code() == (grpc.StatusCode.DEADLINE_EXCEEDED
                                 if kind == "deadline"
                                 else grpc.StatusCode.CANCELLED)
    for _ in range(600):
        load = await control.GetLoad(control_pb2.GetLoadRequest())
        if not load.running_requests and not load.reserved_blocks:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the request is still running")
