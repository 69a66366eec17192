"""Sessions and requests under the policies that choose by attention."""

import pytest
from millrace.v1 import common_pb2, inference_pb2

from raw_session import (ENDLESS, GREEDY, PLAIN, RawSession, as_inputs,
                         budget, open_plain)

TOVA = {"tova": {"budget_tokens": 64, "evict_stride": 16}}
H2O = {"h2o": {"budget_tokens": 64, "evict_stride": 16, "recent_tokens": 24}}
SNAPKV = {"snapkv": {"budget_tokens": 64, "segment_tokens": 48,
                     "vote_window": 16}}
MOST = {"tova": 80, "h2o": 80, "snapkv": 112}  # resident tokens
PROSE = ("The river runs through the old town, past the mill and the church. "
         "Every morning the baker opens his shop before the sun is up. ")


def name(policy):
    return next(iter(policy))


@pytest.fixture(params=[TOVA, H2O, SNAPKV], ids=name)
def policy(request):
    return request.param


@pytest.fixture(params=[TOVA, H2O], ids=name)
def endless_policy(request):
    return request.param


def announced(session):
    return {p for u in session.all("cache_update") for r in u.evicted
            for p in range(r.begin, r.end)}


async def test_a_long_input_is_read_in_bounded_memory(sessions, policy):
    session = await open_plain(sessions, policy)
    await session.append(text=PROSE * 40)
    finished = await session.turn(await session.generate(stopping=budget(20)))
    assert finished.usage.text_position > 1000
    assert finished.usage.generated_tokens == 20
    assert finished.usage.peak_resident_tokens <= MOST[name(policy)]
    assert finished.usage.evicted_tokens > 100
    assert len(announced(session)) == finished.usage.evicted_tokens


async def test_writing_goes_on_far_beyond_the_budget(sessions, endless_policy):
    session = await open_plain(sessions, endless_policy)
    await session.append(text=PROSE)
    finished = await session.turn(await session.generate(stopping=budget(400)))
    assert finished.usage.peak_resident_tokens <= 80
    assert finished.usage.visible_tokens >= 64


async def test_how_a_text_is_cut_into_messages_does_not_matter(
        sessions, endless_policy):
    written = []
    for size in (17, 700):
        session = await open_plain(sessions, endless_policy)
        tokens = [504, 6128, 314, 253, 4959, 2359, 281, 1052, 30] * 30
        for i in range(0, len(tokens), size):
            await session.append(ids=tokens[i:i + size])
        await session.turn(await session.generate(stopping=budget(60)))
        written.append(session.ids())
    assert written[0] == written[1]


async def test_an_interrupt_goes_back_to_the_last_choice_at_most(
        sessions, endless_policy):
    session = await open_plain(sessions, endless_policy)
    await session.append(text=PROSE * 4)
    turn = await session.generate(stopping=ENDLESS)
    await session.position(200)
    await session.interrupt(keep_until_text_position=110)
    finished = await session.turn(turn)
    # Choices are made every 16 tokens; one more token may be needed.
    assert 180 <= finished.kept_until <= finished.usage.text_position
    await session.turn(await session.generate(stopping=budget(40)))


async def test_snapkv_ends_a_turn_when_it_is_full_and_reads_on(sessions):
    session = await open_plain(sessions, SNAPKV)
    await session.append(text=PROSE * 10)
    finished = await session.turn(await session.generate(stopping=ENDLESS))
    assert finished.reason == common_pb2.FINISH_REASON_CAPACITY
    # 64 are kept of the input; 64 + 48 - 16 may be held.
    assert finished.usage.generated_tokens == 32
    await session.append(text=" What did the baker do? " * 2)
    finished = await session.turn(await session.generate(stopping=budget(10)))
    assert finished.usage.generated_tokens == 10


async def test_requests_take_them_too(inference, policy):
    call = inference.Generate(inference_pb2.GenerateRequest(
        inputs=as_inputs(text=PROSE * 10), sampling=GREEDY,
        stopping=budget(10), cache_policy=policy))
    events = [event async for event in call]
    assert events[-1].finished.usage.generated_tokens == 10
    assert events[-1].finished.usage.evicted_tokens > 0


async def test_a_budget_that_holds_all_is_as_full(inference, policy):
    big = {name(policy): {**policy[name(policy)], "budget_tokens": 600}}
    answers = []
    for cache_policy in (big, {"full": {}}):
        call = inference.Generate(inference_pb2.GenerateRequest(
            inputs=as_inputs(text=PROSE * 8), sampling=GREEDY,
            stopping=budget(30), cache_policy=cache_policy))
        answers.append([i async for e in call for i in e.output.token_ids])
    assert answers[0] == answers[1]


async def test_positions_in_the_text_end_at_the_trained_context(sessions):
    session = await open_plain(
        sessions, {"tova": {**TOVA["tova"], "positions": "POSITIONS_TEXT"}})
    await session.append(ids=[504] * 8190)
    finished = await session.turn(await session.generate(stopping=ENDLESS))
    assert finished.reason == common_pb2.FINISH_REASON_CAPACITY
    assert finished.usage.text_position == 8192


BAD = {
    "budget_tokens": {"tova": {"budget_tokens": 8192}},
    "evict_stride": {"h2o": {"evict_stride": 0}},
    "recent_tokens": {"tova": {"recent_tokens": 0}},
    "decay": {"h2o": {"decay": 1.5}},
    "segment_tokens": {"snapkv": {"segment_tokens": 64}},
    "pool_kernel": {"snapkv": {"pool_kernel": 4}},
}


@pytest.mark.parametrize("option", BAD)
async def test_options_that_cannot_hold_are_refused(channel, option):
    failure = await RawSession(channel).open_fails(
        format=PLAIN, cache_policy=BAD[option])
    assert failure.reason == "INVALID_CACHE_POLICY"
    assert option in failure.message
