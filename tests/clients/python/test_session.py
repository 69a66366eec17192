"""The Python client against the real server."""

import asyncio

import millrace
import pytest

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
