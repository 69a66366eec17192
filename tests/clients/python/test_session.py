"""The Python client against the real server."""

import asyncio

import millrace
import pytest
import pytest_asyncio

from cutting_proxy import CuttingProxy

# gRPC keeps to one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

GREEDY = {"temperature": 0}


def short(tokens):
    return {"max_tokens": tokens, "ignore_end_of_turn": True}


async def test_streams_a_reply(server):
    async with millrace.connect(server.address, sampling=GREEDY) as session:
        events = [e async for e in session.chat("hi", stopping=short(8))]
    assert "".join(e.text for e in events)
    assert events[-1].kind == "turn_finished"
    ids = [i for e in events if e.kind == "output"
           for i in e.message.token_ids]
    assert len(ids) == 8


async def test_numbers_of_events_have_no_gap(server):
    async with millrace.connect(server.address, sampling=GREEDY) as session:
        events = [e async for e in session.chat("hi", stopping=short(8))]
    numbers = [e.sequence_number for e in events]
    assert numbers == list(range(2, 2 + len(numbers)))


async def test_appends_while_the_model_writes(server):
    async with millrace.connect(server.address, sampling=GREEDY) as session:
        positions = []
        async for event in session.chat("Tell me of rivers",
                                        stopping=short(40)):
            if event.kind == "output" and not positions:
                positions.append(event.message.text_position)
                queued = await session.append(" (in Europe)")
                assert queued.tokens > 0
            if event.kind == "input_accepted" and event.message.turn:
                positions.append(event.message.text_position)
    assert len(positions) == 2
    assert positions[1] > positions[0]


async def test_interrupts_and_goes_on(server):
    unlimited = {"unlimited": {}, "ignore_end_of_turn": True,
                 "repetition_guard": 0}
    async with millrace.connect(server.address, sampling=GREEDY) as session:
        interrupting = None
        async for event in session.chat("Count", stopping=unlimited):
            if event.kind == "output" and interrupting is None:
                interrupting = asyncio.ensure_future(session.interrupt())
        assert (await interrupting).turn == 1
        assert event.message.reason == 7  # FINISH_REASON_INTERRUPTED
        again = [e async for e in session.generate(stopping=short(4))]
    assert again[0].kind == "turn_started"
    assert again[0].message.continued


async def test_a_refused_message_raises_its_reason(server):
    async with millrace.connect(server.address) as session:
        with pytest.raises(millrace.MillraceError) as error:
            await session.interrupt()
    assert error.value.reason == "NO_TURN"


async def test_a_refused_session_raises_its_reason(server):
    policy = {"sinks": {"window_tokens": 9000}}
    with pytest.raises(millrace.MillraceError) as error:
        async with millrace.connect(server.address, cache_policy=policy):
            pass
    assert error.value.reason == "INVALID_CACHE_POLICY"


async def test_no_server_raises_unavailable():
    with pytest.raises(millrace.MillraceError) as error:
        async with millrace.connect("127.0.0.1:1"):
            pass
    assert error.value.code == "UNAVAILABLE"


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(server):
    async with CuttingProxy(server.address) as proxy:
        yield proxy


async def texts_of_a_reply(address):
    """What the model writes, piece by piece."""
    async with millrace.connect(address, sampling=GREEDY) as session:
        async for event in session.chat("Tell me of rivers",
                                        stopping=short(40)):
            if event.kind == "output":
                yield event.text


async def test_a_lost_connection_is_taken_up_again(server, proxy):
    whole = "".join([t async for t in texts_of_a_reply(server.address)])
    text = ""
    async for piece in texts_of_a_reply(proxy.address):
        if len(text) < len(whole) / 2:
            proxy.cut()
        text += piece
    assert text == whole


def plain(address):
    """A session that takes text without messages around it."""
    return millrace.connect(address, format="FORMAT_PLAIN")


async def test_what_is_sent_as_the_connection_breaks_is_sent_again(proxy):
    async with plain(proxy.address) as session:
        for number in range(20):
            proxy.cut()
            await asyncio.sleep(0)  # the connection closes
            queued = await session.append("on and on")
            assert queued.client_seq == 2 + number


async def test_messages_go_out_in_their_order_while_the_stream_is_renewed(
        proxy):
    async with plain(proxy.address) as session:
        proxy.cut()
        sending = [asyncio.ensure_future(session.append("on"))]
        while not sending[0].done() and len(sending) < 4000:
            sending.append(asyncio.ensure_future(session.append(" and on")))
            await asyncio.sleep(0)  # the client goes on, too
        queued = await asyncio.gather(*sending)
    assert [q.client_seq for q in queued] == list(range(2, 2 + len(queued)))


async def test_a_message_that_is_cancelled_leaves_the_session_open(proxy):
    async with plain(proxy.address) as session:
        sending = asyncio.ensure_future(session.append("word " * 50000))
        while not session._unanswered:  # until the write begins
            await asyncio.sleep(0)
        sending.cancel()
        assert (await session.append("on")).client_seq == 3


async def queue_is_full_behind(event, session):
    """Four events wait, and the client has one more that finds no room."""
    while session._last_event < event.sequence_number + 5:
        await asyncio.sleep(0)


@pytest.fixture
def small_queue(monkeypatch):
    """Four events that nobody takes stop the client's reading."""
    monkeypatch.setattr("millrace.session._MAX_WAITING_EVENTS", 4)


async def test_who_is_behind_with_events_may_interrupt(server, small_queue):
    async with millrace.connect(server.address, sampling=GREEDY) as session:
        async for event in session.chat("Count", stopping=short(500)):
            if event.kind == "turn_started":
                await queue_is_full_behind(event, session)
                assert (await session.interrupt()).turn == 1
    assert event.message.reason == 7  # FINISH_REASON_INTERRUPTED


async def test_a_reply_that_is_left_early_holds_up_nothing(server,
                                                           small_queue):
    async with millrace.connect(server.address, sampling=GREEDY) as session:
        async for event in session.chat("Count", stopping=short(30)):
            if event.kind == "turn_started":
                await queue_is_full_behind(event, session)
                break
        second = [e async for e in session.chat("On", stopping=short(4))]
    assert second[-1].message.turn == 2


async def test_after_the_end_nothing_can_be_sent(server):
    async with millrace.connect(server.address) as session:
        pass
    with pytest.raises(millrace.MillraceError):
        await session.append("on")
    assert [e async for e in session.events()] == []


async def test_an_update_is_answered_by_its_own_answer(proxy):
    async with plain(proxy.address) as session:
        for _ in range(5):
            proxy.cut_after(1)  # byte of the answer
            await session.update(sampling={"temperature": 0.5})
            with pytest.raises(millrace.MillraceError) as error:
                await session.update(sampling={"temperature": -1})
            assert error.value.reason == "INVALID_FIELD"


async def test_large_messages_survive_a_second_cut(proxy):
    async with plain(proxy.address) as session:
        sending = [asyncio.ensure_future(session.append("word " * 10000))
                   for _ in range(10)]
        await sending[0]
        proxy.cut()
        proxy.cut_after(300)  # while what was lost is sent again
        queued = await asyncio.gather(*sending)
    assert [q.client_seq for q in queued] == list(range(2, 12))


async def test_reset_begins_at_the_system_prompt(server):
    async with millrace.connect(server.address,
                                system_prompt="Be brief.") as session:
        pinned = len(session.opened.system_token_ids)
        async for _ in session.chat("hi", stopping=short(4)):
            pass
        await session.reset()
        started = [e async for e in session.chat("hi", stopping=short(4))]
    accepted = [e for e in started if e.kind == "input_accepted"]
    assert accepted[0].message.text_position == pinned
