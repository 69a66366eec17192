"""Interrupts, and cuts back to what the client has seen."""

import pytest
from millrace.v1 import common_pb2

from raw_session import CHAT, ENDLESS, GREEDY, PLAIN, budget, sinks

INTERRUPTED = common_pb2.FINISH_REASON_INTERRUPTED


async def writing(sessions, tokens, **fields):
    """A session whose endless turn has written at least so many tokens."""
    session = await sessions(**{"format": PLAIN, "sampling": GREEDY,
                                **fields})
    kind = "message" if fields.get("format") == CHAT else "text"
    seq = await session.append(**{kind: "Once upon a time"},
                               then_generate={"stopping": ENDLESS})
    started = await session.event("turn_started", started_by=seq)
    await session.position(started.text_position + tokens)
    return session, seq, started.text_position


async def test_keeps_what_was_written(sessions):
    session, seq, start = await writing(sessions, 5)
    await session.interrupt()
    finished = await session.turn(seq)
    assert finished.reason == INTERRUPTED
    assert finished.kept_until == start + len(session.ids())


async def test_cuts_to_what_was_seen(sessions):
    session, seq, start = await writing(sessions, 30)
    await session.interrupt(keep_until_text_position=start + 12)
    finished = await session.turn(seq)
    assert finished.kept_until == start + 12
    assert finished.usage.text_position == start + 12


@pytest.mark.parametrize("policy", [
    {"full": {}}, sinks(4, 24), {"window": {"window_tokens": 24}}],
    ids=["full", "sinks", "window"])
async def test_a_cut_is_exact(sessions, policy):
    """What is written after a cut follows the kept text alone."""
    session, seq, start = await writing(sessions, 60, cache_policy=policy)
    await session.interrupt(keep_until_text_position=start + 37)
    finished = await session.turn(seq)
    assert finished.kept_until == start + 37
    kept = session.ids()[:37]
    seq = await session.append(" But", then_generate={"stopping": budget(20)})
    await session.turn(seq)

    other = await sessions(format=PLAIN, sampling=GREEDY, cache_policy=policy)
    await other.append("Once upon a time")
    await other.append(ids=kept)
    seq = await other.append(" But", then_generate={"stopping": budget(20)})
    await other.turn(seq)
    assert other.ids() == session.ids(turn=2)


async def test_a_cut_restores_what_it_brings_back(sessions):
    session, seq, start = await writing(
        sessions, 80, cache_policy=sinks(4, 30),
        response={"cache_update_interval_tokens": 1})
    await session.interrupt(keep_until_text_position=start + 50)
    await session.turn(seq)
    restored = session.last("cache_update").restored
    assert restored
    # The checker compared the sets; this names the range.
    assert restored[0].begin == start + 50 - 31


async def test_a_cut_stops_where_the_cache_ends(sessions):
    session, seq, start = await writing(
        sessions, 100, cache_policy=sinks(4, 20), rollback_tokens=16)
    await session.interrupt(keep_until_text_position=start)
    finished = await session.turn(seq)
    cut = start + len(session.ids()) - finished.kept_until
    # One more than asked for: the newest token's keys do not exist yet.
    assert 16 <= cut <= 17


async def test_a_cut_does_not_reach_before_an_input(sessions):
    session, seq, start = await writing(sessions, 10)
    aside = await session.append(" by the way")
    accepted = await session.event("input_accepted", client_seq=aside)
    after = accepted.text_position + accepted.tokens
    await session.position(after + 5)
    await session.interrupt(keep_until_text_position=start + 2)
    finished = await session.turn(seq)
    assert finished.kept_until == after


async def test_a_cut_beyond_the_end_keeps_everything(sessions):
    session, seq, start = await writing(sessions, 5)
    await session.interrupt(keep_until_text_position=10**9)
    finished = await session.turn(seq)
    assert finished.kept_until == start + len(session.ids())


async def test_no_turn_is_harmless(sessions):
    session = await sessions(format=PLAIN)
    seq = await session.interrupt()
    failure = await session.rejected(seq)
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "NO_TURN")
    seq = await session.append("on", then_generate={"stopping": budget(2)})
    await session.turn(seq)


async def test_only_the_turn_that_is_meant(sessions):
    session, seq, _ = await writing(sessions, 3)
    failure = await session.rejected(
        await session.interrupt(started_by=seq + 50))
    assert failure.reason == "NO_TURN"
    assert not session.all("turn_finished")
    await session.interrupt(started_by=seq)
    assert (await session.turn(seq)).reason == INTERRUPTED


async def test_ends_a_turn_that_has_not_started(sessions):
    """A turn behind a long input: interrupted while that is read."""
    session = await sessions(format=PLAIN, cache_policy=sinks(4, 60))
    seq = await session.append("word " * 400,
                               then_generate={"stopping": budget(5)})
    await session.event("input_accepted", client_seq=seq)
    await session.interrupt(started_by=seq)
    finished = await session.event("turn_finished")
    assert finished.reason == INTERRUPTED
    assert not session.all("turn_started") and not session.all("output")
    # Input that was accepted is read all the same.
    tokens = session.last("input_accepted").tokens
    await session.event("input_progress", tokens_read=tokens)
    seq = await session.generate(stopping=budget(3))
    assert (await session.turn(seq)).usage.generated_tokens == 3


async def test_queued_turns_follow(sessions):
    session, first, _ = await writing(sessions, 3, format=CHAT)
    second = await session.append(message="And now?",
                                  then_generate={"stopping": budget(4)})
    await session.event("input_queued", client_seq=second)
    await session.interrupt(started_by=first)
    assert (await session.turn(first)).reason == INTERRUPTED
    assert (await session.turn(second)).usage.generated_tokens == 4


async def test_drops_what_waits_if_told_so(sessions):
    session, first, _ = await writing(sessions, 3, format=CHAT)
    second = await session.append(message="And now?",
                                  then_generate={"stopping": budget(4)})
    await session.event("input_queued", client_seq=second)
    await session.interrupt(drop_pending_input=True)
    await session.until(lambda: len(session.all("turn_finished")) == 2)
    assert [f.reason for f in session.all("turn_finished")] == (
        [INTERRUPTED, INTERRUPTED])
    assert not session.all("input_accepted", client_seq=second)
    await session.close()
