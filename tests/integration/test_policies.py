"""Sessions under the policies that evict many tokens at once.

`Checker` holds every event to the policy's formula; here is what it does not
know: how often, what is computed anew, and what a cut gives back.
"""

import pytest
from millrace.v1 import inference_pb2

from raw_session import (ENDLESS, GREEDY, PLAIN, RawSession, as_inputs,
                         budget, open_plain)

SHIFT = {"shift": {"context_tokens": 64, "n_keep": 4, "n_discard": 20}}
REPREFILL = {"reprefill": {"window_tokens": 60, "rebuild_every": 20}}


@pytest.fixture(params=[SHIFT, REPREFILL], ids=["shift", "reprefill"])
def policy(request):
    return request.param


def ranges(update):
    return [(r.begin, r.end) for r in update.evicted]


async def test_twenty_tokens_leave_at_once(sessions, policy):
    session = await open_plain(sessions, policy)
    prompt = await session.append(ids=[504] * 10)
    accepted = await session.event("input_accepted", client_seq=prompt)
    assert accepted.tokens == 10
    await session.turn(await session.generate(stopping=budget(200)))
    kept = 4 if "shift" in policy else 0
    updates = [u for u in session.all("cache_update") if u.evicted]
    assert [ranges(u) for u in updates] == [
        [(kept + 20 * i, kept + 20 * (i + 1))] for i in range(len(updates))]
    # The first when the 65th or the 62nd token comes, then every 20.
    full = 64 if "shift" in policy else 61
    assert [u.text_position for u in updates] == list(
        range(full + 1, 211, 20))


async def test_a_long_input_is_read_in_bounded_memory(sessions, policy):
    session = await open_plain(sessions, policy)
    await session.append(text="The river runs. " * 300)
    finished = await session.turn(await session.generate(stopping=budget(30)))
    assert finished.usage.text_position > 1000
    # What is visible; for a shift a chunk and the hold for cuts as well.
    most = 63 + 64 + 257 if "shift" in policy else 61
    assert finished.usage.peak_resident_tokens <= most
    assert finished.usage.visible_tokens <= 64


async def test_an_interrupt_gives_back_what_had_left(sessions, policy):
    session = await open_plain(sessions, policy)
    await session.append(ids=[504] * 10)
    turn = await session.generate(stopping=ENDLESS)
    await session.position(90)
    # 75 tokens see what 90 do not: 20 tokens come back.
    await session.interrupt(keep_until_text_position=75)
    finished = await session.turn(turn)
    assert finished.kept_until == 75
    await session.turn(await session.generate(stopping=budget(40)))


async def test_what_is_computed_anew_is_told(sessions):
    session = await open_plain(sessions, REPREFILL)
    await session.append(ids=[504] * 10)
    await session.turn(await session.generate(stopping=budget(100)))
    anew = [(r.begin, r.end) for u in session.all("cache_update")
            for r in u.recomputed]
    assert anew == [(20, 61), (40, 81), (60, 101)]


async def test_a_shift_computes_nothing_anew(sessions):
    session = await open_plain(sessions, SHIFT)
    await session.append(ids=[504] * 10)
    await session.turn(await session.generate(stopping=budget(100)))
    assert not any(u.recomputed for u in session.all("cache_update"))


async def test_reprefill_writes_what_its_visible_text_says(sessions,
                                                           inference):
    """As if the text consisted of what is visible alone."""
    session = await open_plain(sessions, REPREFILL)
    tokens = [504, 6128, 314, 253, 4959, 2359, 281] * 12  # 84: sees 40 .. 83
    await session.append(ids=tokens)
    await session.turn(await session.generate(stopping=budget(8)))
    call = inference.Generate(inference_pb2.GenerateRequest(
        inputs=as_inputs(ids=tokens[40:]), sampling=GREEDY,
        stopping=budget(8), cache_policy={"full": {}}))
    alone = [i async for event in call for i in event.output.token_ids]
    assert session.ids() == alone


BAD = {
    "n_discard": {"shift": {"context_tokens": 64, "n_discard": 60}},
    "context_tokens": {"shift": {"context_tokens": 9000}},
    "rebuild_every": {"reprefill": {"window_tokens": 60, "rebuild_every": 61}},
    "window_tokens": {"reprefill": {"window_tokens": 8192}},
}


@pytest.mark.parametrize("option", BAD)
async def test_options_that_cannot_hold_are_refused(channel, option):
    failure = await RawSession(channel).open_fails(
        format=PLAIN, cache_policy=BAD[option])
    assert failure.reason == "INVALID_CACHE_POLICY"
    assert option in failure.message
