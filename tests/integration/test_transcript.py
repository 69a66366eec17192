"""The transcript of the manual: one session from open to close.

Positions are computed here, from what the server says a text has in tokens
and from the policy's formula: after n tokens the newest sees the protected
prefix, the window before it, and itself.
"""

import pytest
from millrace.v1 import common_pb2, inference_pb2, session_pb2

from raw_session import CHAT, ENDLESS, GREEDY, budget, sinks

WINDOW = 60


async def test_transcript(sessions):
    session = await sessions(
        format=CHAT, system_prompt="Be brief.", sampling=GREEDY,
        cache_policy=sinks(4, WINDOW), response={
            "cache_update_interval_tokens": 16})
    system = len(session.opened.system_token_ids)
    assert system > 4
    full_at = system + WINDOW + 1

    # A message of the user, and a turn.
    asked = await session.append(message="Tell me of rivers",
                                 then_generate={"stopping": ENDLESS})
    queued = await session.event("input_queued", client_seq=asked)
    accepted = await session.event("input_accepted", client_seq=asked)
    assert (accepted.text_position, accepted.turn) == (system, 0)
    assert accepted.tokens == queued.tokens
    started = await session.event("turn_started", started_by=asked)
    assert started.turn == 1 and not started.continued
    assert started.text_position == system + accepted.tokens
    assert started.prefix_token_ids  # opens the reply

    # Text goes into the reply while it is written.
    await session.event("output", turn=1)
    aside = await session.append(" (in Europe)")
    placed = await session.event("input_accepted", client_seq=aside)
    assert placed.turn == 1
    assert placed.tokens == (
        await session.event("input_queued", client_seq=aside)).tokens

    # The window fills: the first eviction is announced at once.
    first = await session.event("cache_update")
    assert [(r.begin, r.end) for r in first.evicted] == [(system, system + 1)]
    assert first.text_position == full_at + 1
    assert first.visible_tokens == full_at

    # An interrupt ends the turn and keeps its text.
    await session.position(full_at + 30)
    await session.interrupt(started_by=asked)
    finished = await session.event("turn_finished", turn=1)
    assert finished.reason == common_pb2.FINISH_REASON_INTERRUPTED
    end = finished.kept_until
    assert end == finished.usage.text_position >= full_at + 30
    assert finished.usage.visible_tokens == full_at
    assert session.checker.evicted == set(range(system, end - WINDOW - 1))

    # It goes on where it stopped; a second turn is refused meanwhile.
    again = await session.generate(stopping=budget(200))
    refused = await session.generate()
    assert (await session.rejected(refused)).reason == "TURN_RUNNING"
    started = await session.event("turn_started", started_by=again)
    assert started.continued and not started.prefix_token_ids
    assert started.text_position == end
    finished = await session.turn(again)
    assert finished.reason == common_pb2.FINISH_REASON_MAX_TOKENS
    end += 200
    assert finished.kept_until == end

    # A message longer than the whole cache: some of it is forgotten unheard.
    long = await session.append(message="water " * 200)
    accepted = await session.event("input_accepted", client_seq=long)
    assert accepted.text_position == end
    progress = await session.event("input_progress", client_seq=long,
                                   tokens_read=accepted.tokens)
    end += accepted.tokens
    assert progress.tokens_total == accepted.tokens
    assert progress.forgotten_tokens == accepted.tokens - (WINDOW + 1)
    assert session.checker.evicted == set(range(system, end - WINDOW - 1))

    closed = await session.close()
    assert closed.reason == session_pb2.CLOSE_REASON_CLIENT
    assert closed.usage.text_position == end
    assert closed.usage.evicted_tokens == end - full_at


async def test_every_position_is_told_and_spells_the_text(sessions,
                                                          inference):
    """What a client sums up is what the model has read and written."""
    session = await sessions(format=CHAT, sampling=GREEDY)
    seq = await session.append(message="Name a river.",
                               then_generate={"stopping": budget(12)})
    await session.turn(seq)
    system = list(session.opened.system_token_ids)
    rendered = await inference.Tokenize(inference_pb2.TokenizeRequest(
        inputs=[common_pb2.Input(message=common_pb2.ChatMessage(
            role="ROLE_USER", text="Name a river."))],
        add_generation_prompt=True))
    given = list(rendered.token_ids)
    assert given[:len(system)] == system
    text = given + session.ids()
    known = session.checker.text
    assert len(known) == len(text)
    assert all(k in (None, t) for k, t in zip(known, text))


@pytest.mark.parametrize("policy", [
    {"window": {"window_tokens": 20}},
    sinks(4, 20), sinks(0, 20), sinks(8, 9, pin_tokens=30),
    sinks(2, 31, pin_system_prompt=False),
    {"full": {"max_tokens": 200}},
], ids=["window", "sinks", "no sinks", "pinned", "unpinned", "full"])
async def test_announced_evictions_are_those_of_the_policy(sessions, policy):
    session = await sessions(
        format=CHAT, system_prompt="You like rivers.", sampling=GREEDY,
        cache_policy=policy, response={"cache_update_interval_tokens": 7})
    for message in ("Go", "on and on " * 20):
        seq = await session.append(message=message,
                                   then_generate={"stopping": budget(15)})
        await session.turn(seq)
    evicts = "full" not in policy
    assert bool(session.checker.evicted) == evicts
    await session.close()
