"""Prompt-lookup speculation through gRPC: the same tokens in fewer steps."""

import pytest
from millrace.v1 import common_pb2, inference_pb2

from raw_session import GREEDY, PLAIN, as_inputs, budget, sinks

# It goes on by repeating itself.
TEXT = "one two three four five six seven eight nine ten " * 6
SEEDED = {"temperature": 0.8, "top_p": 0.9, "seed": 11}
NONE = common_pb2.SPECULATION_NONE
NGRAM = common_pb2.SPECULATION_NGRAM
# The window slides while it writes.
POLICIES = {"full": {"full": {}}, "sinks": sinks(4, 60)}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("sampling", [GREEDY, SEEDED],
                         ids=["greedy", "seeded"])
async def test_generate_writes_the_same(inference, policy, sampling):
    ids, usages = {}, {}
    for how in (NONE, NGRAM):
        request = inference_pb2.GenerateRequest(
            inputs=as_inputs(TEXT), sampling={**sampling, "speculation": how},
            cache_policy=POLICIES[policy], stopping=budget(150))
        responses = [r async for r in inference.Generate(request)]
        ids[how] = [i for r in responses if r.HasField("output")
                    for i in r.output.token_ids]
        usages[how] = responses[-1].finished.usage
    assert ids[NGRAM] == ids[NONE]
    assert len(ids[NGRAM]) == 150
    assert usages[NONE].drafted_tokens == usages[NONE].accepted_tokens == 0
    usage = usages[NGRAM]
    assert 0 < usage.accepted_tokens <= usage.drafted_tokens
    assert usage.accepted_tokens < usage.generated_tokens == 150
    assert usage.evicted_tokens == usages[NONE].evicted_tokens


async def test_a_session_writes_the_same_turn_after_turn(sessions):
    written, usages = {}, {}
    for how in (NONE, NGRAM):
        session = await sessions(
            format=PLAIN, sampling={**GREEDY, "speculation": how},
            cache_policy=sinks(4, 100))
        usages[how] = []
        for _ in range(3):
            seq = await session.append(
                TEXT, then_generate={"stopping": budget(60)})
            usages[how].append((await session.turn(seq)).usage)
        written[how] = session.ids()
    assert written[NGRAM] == written[NONE]
    assert all(u.drafted_tokens == 0 for u in usages[NONE])
    assert all(0 < u.accepted_tokens <= u.drafted_tokens
               for u in usages[NGRAM])


async def test_the_server_speculates_if_nobody_says(sessions):
    session = await sessions(format=PLAIN, sampling=GREEDY)
    options = session.opened.effective_options
    assert options.sampling.speculation == NGRAM
