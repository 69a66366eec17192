"""Sessions outlive their streams."""

import asyncio
import random
import time

import grpc
import pytest
from google.protobuf import duration_pb2
from millrace.v1 import admin_pb2, session_pb2

import failures
import raw_session
from cutting_proxy import CuttingProxy
from raw_session import ENDLESS, GREEDY, PLAIN, budget

TOKENS = 150


@pytest.fixture
async def proxy(server):
    async with CuttingProxy(server.address) as proxy:
        yield proxy


@pytest.fixture
async def through_proxy(proxy):
    async with grpc.aio.insecure_channel(
            proxy.address, options=raw_session.CHANNEL_OPTIONS) as channel:
        yield channel


async def writes(session, tokens=TOKENS):
    await session.append("The story of the river begins")
    return await session.generate(stopping=budget(tokens))


async def resumes(session, **fields):
    """Takes the session up again, as often as the network needs."""
    seen = len(session.all("resumed"))
    while True:
        await session.resume(**fields)
        try:
            await session.until(
                lambda: len(session.all("resumed")) > seen)
            return session.last("resumed")
        except AssertionError:
            session.check()
            assert session.failure.code == "UNAVAILABLE"


async def is_gone(session, admin):
    """Waits until the server knows the session no more."""
    request = admin_pb2.GetSessionRequest(session_id=session.opened.session_id)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            await admin.GetSession(request)
        except grpc.aio.AioRpcError as error:
            assert failures.of_call(error).reason == "SESSION_NOT_FOUND"
            break
    await session.resume()
    assert (await session.stream_end()).reason == "SESSION_NOT_FOUND"


@pytest.fixture
async def uncut(sessions):
    """What the same session writes over a stream that is never cut."""
    session = await sessions(format=PLAIN, sampling=GREEDY)
    await session.turn(await writes(session))
    return session.ids()


async def test_cut_at_random_points_nothing_is_lost(sessions, proxy,
                                                     through_proxy, uncut,
                                                     full):
    dice = random.Random(7)
    for _ in range(100 if full else 6):
        session = await sessions(through_proxy, format=PLAIN, sampling=GREEDY)
        seq = await writes(session)
        for _ in range(3):
            proxy.cut_after(dice.randrange(1, 2500))
            await asyncio.wait([asyncio.create_task(session.stream_end()),
                                asyncio.create_task(session.turn(seq))],
                               return_when=asyncio.FIRST_COMPLETED)
            if session.all("turn_finished"):
                break
            await resumes(session)
        proxy.cut_after(10**9)
        await session.turn(seq)
        assert session.ids() == uncut
        await session.close()


async def test_a_cancelled_stream_leaves_the_session_writing(sessions, uncut):
    session = await sessions(format=PLAIN, sampling=GREEDY)
    seq = await writes(session)
    await session.event("output")
    session.cancel()
    assert (await session.stream_end()).code == "CANCELLED"
    resumed = await resumes(session)
    assert not resumed.gap
    await session.turn(seq)
    assert session.ids() == uncut


async def test_resumed_comes_after_what_is_sent_again(sessions):
    session = await sessions(format=PLAIN, sampling=GREEDY)
    seq = await writes(session, 10)
    await session.turn(seq)
    session.cancel()
    await session.stream_end()
    before = list(session.events)
    # A client that remembers nothing but the first event.
    again = raw_session.RawSession(session._channel)
    again.opened = session.opened
    again.checker.see(before[0])
    await again.resume(last=1)
    await again.event("resumed")
    assert again.events[:-1] == before[1:]
    assert again.events[-1].WhichOneof("event") == "resumed"
    again.check()
    await again.drop()


async def test_a_message_sent_again_counts_once(sessions):
    """What a client does that does not know whether it was heard."""
    session = await sessions(format=PLAIN, sampling=GREEDY)
    request = session_pb2.AppendInput(
        inputs=raw_session.as_inputs("on and on"))
    seq = await session.send(append=request)
    await session.event("input_accepted", client_seq=seq)
    session.cancel()
    await session.stream_end()
    await resumes(session)
    await session.send(client_seq=seq, append=request)
    await session.until(lambda: len(session.all("input_queued")) == 2)
    assert len(session.all("input_accepted")) == 1


async def test_beyond_the_ring_there_is_a_gap(sessions):
    """More events than are kept: nothing is invented."""
    session = await sessions(format=PLAIN, sampling=GREEDY)
    for _ in range(600):
        await session.interrupt()  # answered `rejected`: an event each
    await session.until(lambda: len(session.all("rejected")) == 600)
    last = session.checker.last_number
    session.cancel()
    await session.stream_end()
    forgetful = raw_session.RawSession(session._channel)
    forgetful.opened = session.opened
    forgetful.checker.see(session.events[0])
    await forgetful.resume(last=1)
    resumed = await forgetful.event("resumed")
    assert resumed.gap and resumed.text_position == 0
    assert forgetful.events[0].sequence_number == last + 1
    assert len(forgetful.events) == 1
    await forgetful.drop()


async def test_a_number_from_the_future_is_a_gap(sessions):
    session = await sessions(format=PLAIN)
    session.cancel()
    await session.stream_end()
    await session.resume(last=10**6)
    assert (await session.event("resumed")).gap


async def test_a_newer_stream_takes_over(sessions):
    old = await sessions(format=PLAIN, sampling=GREEDY)
    seq = await old.append("on and", then_generate={"stopping": ENDLESS})
    await old.event("output")
    new = raw_session.RawSession(old._channel)
    new.opened = old.opened
    new.checker.see(old.events[0])
    await new.resume(last=1)
    await new.event("resumed")
    failure = await old.stream_end()
    assert (failure.code, failure.reason) == ("ABORTED", "SESSION_FENCED")
    new._seq = seq
    await new.interrupt()
    await new.event("turn_finished")
    new.check()
    await new.drop()


async def test_wrong_token_and_unknown_session_look_the_same(sessions,
                                                             channel):
    session = await sessions(format=PLAIN)
    failures = []
    for fields in ({"resume_token": "0" * 64},
                   {"resume_token": ""},
                   {"session_id": "0" * 32},
                   {"session_id": "", "resume_token": ""}):
        thief = raw_session.RawSession(channel)
        thief.opened = session.opened
        await thief.resume(last=0, **fields)
        failures.append(await thief.stream_end())
    assert {(f.code, f.reason) for f in failures} == {
        ("NOT_FOUND", "SESSION_NOT_FOUND")}
    assert len({(f.message, f.details) for f in failures}) == 1
    # The session does not notice.
    seq = await session.append("on", then_generate={"stopping": budget(2)})
    await session.turn(seq)


async def test_a_closed_session_cannot_be_resumed(sessions, channel):
    session = await sessions(format=PLAIN)
    await session.close()
    await session.resume()
    assert (await session.stream_end()).reason == "SESSION_NOT_FOUND"


async def test_without_a_detach_timeout_it_ends_at_once(sessions, admin):
    session = await sessions(format=PLAIN,
                             detach_timeout=duration_pb2.Duration())
    session.cancel()
    await session.stream_end()
    await is_gone(session, admin)


async def test_a_detached_session_ends_after_its_timeout(sessions, admin):
    session = await sessions(format=PLAIN, detach_timeout=duration_pb2.Duration(
        nanos=200_000_000))
    session.cancel()
    await session.stream_end()
    await is_gone(session, admin)


async def test_an_idle_session_is_closed(sessions):
    session = await sessions(format=PLAIN, idle_timeout=duration_pb2.Duration(
        nanos=300_000_000))
    closed = await session.event("closed")
    assert closed.reason == session_pb2.CLOSE_REASON_IDLE
    assert await session.stream_end() is None
