"""Input that comes while the model writes, and what it writes then.

Where an input lands is up to the moment; what it does there is not: the same
input at the same position gives the same tokens, however it came.
"""

import random

import pytest
from millrace.v1 import common_pb2

from raw_session import GREEDY, PLAIN, budget, sinks

PROMPT = "The river runs through the old town, and in the evening"
ASIDES = [" (they say)", " - but no! -", "\n\nChapter 2\n", " and 3.14159,"]
TOKENS = 60
POLICY = sinks(4, 40)


async def write(sessions, sampling, appends, tokens=TOKENS):
    """Runs a turn; `appends` is called with the session meanwhile."""
    session = await sessions(format=PLAIN, sampling=sampling,
                             cache_policy=POLICY)
    await session.append(PROMPT)
    await appends(session, "before")
    seq = await session.generate(stopping=budget(tokens))
    await appends(session, "after")
    await session.turn(seq)
    return session


def at_random_steps(dice):
    async def appends(session, when):
        if when == "before":
            return
        start = (await session.event("turn_started")).text_position
        steps = sorted(dice.sample(range(1, TOKENS - 8), len(ASIDES)))
        for step, text in zip(steps, ASIDES):
            await session.position(start + step)
            await session.append(text)
    return appends


def at_positions(placed):
    async def appends(session, when):
        if when == "before":
            for position, text in placed:
                await session.append(text, at_text_position=position)
    return appends


def placements(session):
    """(position, tokens) of each input placed in the turn."""
    return [(a.text_position, a.tokens)
            for a in session.all("input_accepted") if a.turn]


def whole_text(session, pieces):
    """All ids of the text; `pieces` are those of the inputs, in order."""
    text = list(session.checker.text)
    for accepted, ids in zip(session.all("input_accepted"), pieces):
        assert len(ids) == accepted.tokens
        text[accepted.text_position:accepted.text_position + len(ids)] = ids
    assert None not in text
    return text


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_same_positions_give_the_same_tokens(sessions, seed):
    sampling = {"temperature": 1.0, "seed": seed}
    live = await write(sessions, sampling,
                       at_random_steps(random.Random(seed)))
    placed = placements(live)
    assert len(placed) == len(ASIDES)
    named = [(position, text)
             for (position, _), text in zip(placed, ASIDES)]
    again = await write(sessions, sampling, at_positions(named))
    assert placements(again) == placed
    assert again.ids() == live.ids()
    assert again.text() == live.text()


@pytest.mark.parametrize("seed", [4, 5])
async def test_equals_the_text_read_in_one_piece(sessions, tokens_of, seed):
    """Greedy: what follows the last input follows the whole text too."""
    live = await write(sessions, GREEDY, at_random_steps(random.Random(seed)))
    pieces = [await tokens_of(t) for t in [PROMPT, *ASIDES]]
    text = whole_text(live, pieces)
    position, tokens = placements(live)[-1]
    read = position + tokens
    assert len(text) > read
    whole = await sessions(format=PLAIN, sampling=GREEDY, cache_policy=POLICY)
    await whole.append(ids=text[:read])
    seq = await whole.generate(stopping=budget(len(text) - read))
    await whole.turn(seq)
    assert whole.ids() == text[read:]


async def test_an_input_changes_what_follows(sessions):
    """The control: without the input the text is another one."""
    async def nothing(session, when):
        pass
    bare = await write(sessions, GREEDY, nothing)
    prompt = bare.all("input_accepted")[0].tokens
    touched = await write(sessions, GREEDY,
                          at_positions([(prompt + 10, ASIDES[2])]))
    assert touched.ids()[:10] == bare.ids()[:10]
    assert touched.ids() != bare.ids()


async def test_the_budget_of_the_turn_is_unchanged(sessions):
    session = await write(sessions, GREEDY, at_positions([(30, ASIDES[0])]))
    finished = session.last("turn_finished")
    assert finished.reason == common_pb2.FINISH_REASON_MAX_TOKENS
    assert finished.usage.generated_tokens == TOKENS == len(session.ids())


async def test_input_goes_in_at_a_character_boundary(sessions):
    """Text stays whole whatever is put into it."""
    session = await sessions(format=PLAIN, sampling={"temperature": 1.5,
                                                     "top_p": 1, "min_p": 0,
                                                     "seed": 8},
                             cache_policy=POLICY)
    await session.append("Emoji: 🙂🐟🦀 日本語のテキスト: ")
    seq = await session.generate(stopping=budget(80))
    await session.event("turn_started")
    for _ in range(10):
        last = await session.append("é")
        await session.event("input_accepted", client_seq=last)
    await session.turn(seq)
    assert len(session.all("input_accepted")) == 11
    assert session.text()


async def test_a_position_that_has_passed_is_refused(sessions):
    session = await sessions(format=PLAIN)
    await session.append("one two three four")
    accepted = await session.event("input_accepted")
    assert accepted.tokens > 2
    seq = await session.append("five", at_text_position=2)
    failure = await session.rejected(seq)
    assert (failure.reason, failure.code) == ("INVALID_FIELD",
                                              "INVALID_ARGUMENT")
    assert failure.field == "at_text_position"
