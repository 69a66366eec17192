"""Sessions side by side, and each as if it were alone."""

import asyncio

import pytest

import exposition
import raw_session
from raw_session import PLAIN, budget, sinks

SESSIONS = 32
PROMPTS = ["The river", "In the year 1805,", "A list of fruits: apples,",
           "He opened the door and", "def main():", "It is known that",
           "Dear Sir,", "Once, in the"]


def seeded(index):
    return {"temperature": 0.9, "seed": 1000 + index}


async def run(sessions, index, tokens=24):
    session = await sessions(format=PLAIN, sampling=seeded(index),
                             cache_policy=sinks(4, 30))
    # Prompts of many lengths, so that sessions read while others write.
    prompt = PROMPTS[index % len(PROMPTS)] * (1 + index % 5)
    seq = await session.append(prompt,
                               then_generate={"stopping": budget(tokens)})
    await session.turn(seq)
    return session


class Rows:
    """Steps that had more than 16 rows, from now on."""

    def __init__(self, server):
        self._server = server
        self._before = self._now()

    def _now(self):
        return (exposition.total(self._server,
                                 "millrace_engine_batch_rows_count") -
                exposition.total(self._server,
                                 "millrace_engine_batch_rows_bucket",
                                 le="16"))

    def since(self):
        return self._now() - self._before


async def test_32_at_once_equal_each_alone(sessions, server):
    alone = [(await run(sessions, i)).ids() for i in range(SESSIONS)]
    assert len({tuple(ids) for ids in alone}) > SESSIONS / 2
    decoded_together = Rows(server)
    together = await asyncio.gather(
        *(run(sessions, i) for i in range(SESSIONS)))
    assert [s.ids() for s in together] == alone
    assert decoded_together.since() > 0


async def test_a_long_prompt_does_not_stop_the_others(sessions, tokens_of):
    """Between two steps of a writer at most one chunk of a reader goes in."""
    writer = await sessions(format=PLAIN, sampling=seeded(0),
                            cache_policy=sinks(4, 30))
    await writer.append("The river")
    seq = await writer.generate(stopping=raw_session.ENDLESS)
    await writer.event("output")
    reader = await sessions(format=PLAIN, cache_policy=sinks(4, 60))
    text = "a long story of a long river " * 100
    before = len(writer.ids())
    long = await reader.append(text)
    tokens = (await reader.event("input_accepted", client_seq=long)).tokens
    await reader.event("input_progress", tokens_read=tokens)
    written = len(writer.ids()) - before
    chunks = tokens / 64
    assert written >= chunks / 2
    await writer.interrupt()
    await writer.turn(seq)


async def test_a_short_prompt_is_read_before_a_long_one_ends(sessions):
    long = await sessions(format=PLAIN, cache_policy=sinks(4, 60))
    seq = await long.append("a long story of a long river " * 1000)
    tokens = (await long.event("input_accepted", client_seq=seq)).tokens
    short = await run(sessions, 0, 4)
    assert len(short.ids()) == 4
    read = [p.tokens_read for p in long.all("input_progress")]
    assert not read or read[-1] < tokens


@pytest.mark.parametrize("other", ["close", "reset", "interrupt"])
async def test_what_one_does_is_nothing_to_another(sessions, other):
    reference = (await run(sessions, 3, 60)).ids()
    bystander = asyncio.create_task(run(sessions, 3, 60))
    for _ in range(3):
        noisy = await sessions(format=PLAIN, sampling=seeded(9))
        await noisy.append("noise " * 50)
        await noisy.generate(stopping=raw_session.ENDLESS)
        await noisy.event("output")
        await getattr(noisy, other)()
    assert (await bystander).ids() == reference
