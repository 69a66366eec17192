"""A conversation replayed: what is in view is recalled, what has left is not.

Somebody tells code words, talk of many lines follows, and the words are asked
for by beginning the same sentence. A model that sees them goes on with them.
"""

import client
import novel
import pytest
import terminal

from raw_session import GREEDY, PLAIN, budget, sinks

WINDOW = 250
TOLD = "The code words are"
WORDS = " copper, lantern, falcon, marble, orchard, violet, anchor, thistle"
FACT = f"Anna: {TOLD}{WORDS}.\n"


@pytest.fixture(scope="module")
def talk():
    """Lines of talk, of about 5,000 tokens."""
    text = novel.text(60_000)[40_000:]
    lines = [" ".join(part.split()) for part in text.split("\n\n")]
    return [f"{'Boris' if i % 2 else 'Clara'}: {line}\n"
            for i, line in enumerate(lines) if line]


async def open_session(sessions, **fields):
    return await sessions(format=PLAIN, sampling=GREEDY,
                          cache_policy=sinks(4, WINDOW),
                          response={"cache_update_interval_tokens": 1},
                          **fields)


async def say(session, line):
    """Adds a line; the text positions it takes."""
    seq = await session.append(line)
    accepted = await session.event("input_accepted", client_seq=seq)
    return range(accepted.text_position,
                 accepted.text_position + accepted.tokens)


async def talk_on(session, talk, tokens):
    """Adds so many tokens of talk at least, at most a line more."""
    begin = len(session.checker.text)
    for line in talk:
        if len(session.checker.text) - begin >= tokens:
            return
        await say(session, line)
    raise AssertionError("the talk is too short")


async def recall(session):
    """How the sentence goes on when it is begun again."""
    await say(session, f"Anna: {TOLD}")
    turn = await session.generate(stopping=budget(24))
    await session.turn(turn)
    return session.text()


def words_recalled(written):
    """Of the eight, how many come in their order before anything else."""
    right = 0
    for said, told in zip(written.split("\n")[0].split(","),
                          WORDS.split(",")):
        if said.strip(" .") != told.strip():
            break
        right += 1
    return right


async def test_what_is_within_the_window_is_recalled(sessions, talk):
    session = await open_session(sessions)
    await talk_on(session, talk, 2 * WINDOW)
    told = await say(session, FACT)
    await talk_on(session, talk[30:], 60)
    written = await recall(session)
    assert words_recalled(written) == 8, written
    assert session.checker.evicted and not session.checker.evicted & set(told)


async def test_what_has_left_the_window_is_not_recalled(sessions, talk):
    session = await open_session(sessions)
    await talk_on(session, talk, 2 * WINDOW)
    told = await say(session, FACT)
    await talk_on(session, talk[30:], WINDOW + 10)
    written = await recall(session)
    assert words_recalled(written) == 0, written
    assert session.checker.evicted >= set(told)


async def test_what_the_system_prompt_says_is_recalled_ten_windows_later(
        sessions, talk):
    session = await open_session(sessions, system_prompt=FACT)
    await talk_on(session, talk, 10 * WINDOW)
    written = await recall(session)
    assert words_recalled(written) == 8, written


async def test_a_system_prompt_that_is_not_pinned_is_forgotten(sessions, talk):
    session = await sessions(
        format=PLAIN, sampling=GREEDY, system_prompt=FACT,
        cache_policy=sinks(4, WINDOW, pin_system_prompt=False))
    await talk_on(session, talk, 2 * WINDOW)
    assert words_recalled(await recall(session)) == 0


async def test_without_a_limit_of_the_window_the_fact_comes_back(sessions,
                                                                 talk):
    """The control: it is the window that forgets, not the model."""
    session = await sessions(format=PLAIN, sampling=GREEDY,
                             cache_policy={"full": {"max_tokens": 2000}})
    await talk_on(session, talk, 2 * WINDOW)
    await say(session, FACT)
    await talk_on(session, talk[30:], WINDOW + 10)
    assert words_recalled(await recall(session)) == 8


def test_the_chat_says_which_text_has_left(server):
    command = [client.cli(), f"--server={server.address}", "chat",
               "--cache_policy=sinks:window_tokens=60", "--max_tokens=40",
               "--ignore_end_of_turn", "--temperature=0"]
    with terminal.Terminal(command) as chat:
        chat.wait_for("Connected")
        chat.type(f"{TOLD}{WORDS}\r")
        chat.wait_for("ended: max_tokens")
        chat.type("/stats\r")
        chat.wait_for("forgotten       ")
        chat.type("Tell me of rivers\r")
        chat.wait_for("---- forgotten: all before \"")
        marked = chat.output.rsplit("all before ", 1)[1].split('"')[1]
        chat.type("/stats\r")
        chat.wait_for(f"forgotten       all before \"{marked}\" but the first")
        chat.type("/quit\r")
        assert chat.exit_code() == 0
