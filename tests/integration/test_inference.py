"""Generate, Score, Tokenize and Detokenize."""

import math

import grpc
import pytest
from millrace.v1 import common_pb2, inference_pb2

import failures
from checker import evicted
from raw_session import GREEDY, PLAIN, as_inputs, budget, sinks

TEXT = ("The river runs through the old town. In spring the water is high, "
        "and the boats lie low under the bridge; in summer it is so low that "
        "children walk across. Nobody remembers a year without a flood. ")


async def generate(inference, text=None, **fields):
    """(accepted, outputs, updates, finished) of a Generate."""
    request = inference_pb2.GenerateRequest(
        **{"inputs": as_inputs(text), "sampling": GREEDY, **fields})
    responses = [r async for r in inference.Generate(request)]
    kinds = [r.WhichOneof("event") for r in responses]
    assert kinds[0] == "accepted" and kinds[-1] == "finished"
    assert kinds.count("accepted") == kinds.count("finished") == 1
    return (responses[0].accepted,
            [r.output for r in responses if r.HasField("output")],
            [r.cache_update for r in responses if r.HasField("cache_update")],
            responses[-1].finished)


async def score(inference, *inputs, per_token=True, **setup):
    """(values by position, updates, finished) of a Score."""
    call = inference.Score()
    await call.write(inference_pb2.ScoreRequest(
        setup=inference_pb2.ScoreSetup(per_token=per_token, **setup)))
    for piece in inputs:
        await call.write(inference_pb2.ScoreRequest(input=piece))
    await call.done_writing()
    values, updates, finished = {}, [], None
    while (response := await call.read()) is not grpc.aio.EOF:
        assert finished is None, "a message after finished"
        if response.HasField("chunk"):
            chunk = response.chunk
            assert chunk.first_position == len(values) + 1, "a hole"
            for i, value in enumerate(chunk.log_likelihoods):
                values[chunk.first_position + i] = value
        elif response.HasField("cache_update"):
            updates.append(response.cache_update)
        elif response.HasField("finished"):
            finished = response.finished
    assert finished is not None
    return values, updates, finished


def ids_of(outputs):
    return [i for o in outputs for i in o.token_ids]


# ---- Generate ----

async def test_generate_tells_every_token(inference, tokens_of):
    prompt = await tokens_of(TEXT)
    accepted, outputs, updates, finished = await generate(
        inference, TEXT, stopping=budget(20))
    assert accepted.input_tokens == len(prompt)
    position = len(prompt)
    for output in outputs:
        assert output.turn == 1 and output.text_position == position
        position += len(output.token_ids)
    assert position == len(prompt) + 20 == finished.usage.text_position
    assert finished.usage.input_tokens == len(prompt)
    assert finished.usage.generated_tokens == 20
    assert finished.reason == common_pb2.FINISH_REASON_MAX_TOKENS
    assert not updates  # `full` evicts nothing
    # Its default holds the prompt and what may be written.
    assert accepted.effective_options.cache_policy.HasField("full")


async def test_generate_writes_what_a_session_writes(inference, sessions):
    # One policy: what it protects is stored with more bits than the rest.
    policy = sinks(4, 60)
    _, outputs, _, _ = await generate(inference, TEXT, stopping=budget(16),
                                      cache_policy=policy)
    session = await sessions(format=PLAIN, sampling=GREEDY,
                             cache_policy=policy)
    seq = await session.append(TEXT, then_generate={"stopping": budget(16)})
    await session.turn(seq)
    assert ids_of(outputs) == session.ids()


async def test_generate_takes_a_prompt_longer_than_the_cache(inference,
                                                             tokens_of):
    prompt = await tokens_of(TEXT * 4)
    policy = sinks(4, 60)
    accepted, outputs, updates, finished = await generate(
        inference, TEXT * 4, cache_policy=policy, stopping=budget(10))
    end = len(prompt) + 10
    told = [p for u in updates for r in u.evicted
            for p in range(r.begin, r.end)]
    assert len(told) == len(set(told))
    assert set(told) == set(evicted(accepted.effective_options.cache_policy,
                                    0, end))
    assert finished.usage.visible_tokens == 4 + 61
    assert finished.usage.evicted_tokens == len(told)


async def test_generate_chats(inference):
    chat = [common_pb2.Input(message=common_pb2.ChatMessage(role=r, text=t))
            for r, t in (("ROLE_SYSTEM", "Answer in one word."),
                         ("ROLE_USER", "What is the capital of France?"))]
    _, outputs, _, finished = await generate(inference, inputs=chat,
                                             stopping={"max_tokens": 60})
    assert "Paris" in "".join(o.text for o in outputs)
    assert "<|im_end|>" not in "".join(o.text for o in outputs)
    assert finished.reason == common_pb2.FINISH_REASON_END_OF_TURN


async def test_the_same_seed_writes_the_same(inference):
    async def run(seed):
        _, outputs, _, _ = await generate(
            inference, TEXT, stopping=budget(24),
            sampling={"temperature": 1.2, "seed": seed})
        return ids_of(outputs)
    assert await run(5) == await run(5) != await run(6)


async def test_a_seed_that_was_drawn_is_shown(inference):
    accepted, outputs, _, _ = await generate(
        inference, TEXT, stopping=budget(24), sampling={"temperature": 1.2})
    shown = accepted.effective_options.sampling
    _, again, _, _ = await generate(inference, TEXT, stopping=budget(24),
                                    sampling=shown)
    assert ids_of(again) == ids_of(outputs)


# ---- Score ----

@pytest.mark.parametrize("policy", [
    None, sinks(4, 30), {"window": {"window_tokens": 40}}],
    ids=["full", "sinks", "window"])
async def test_score_equals_the_logprobs_of_generate(inference, policy,
                                                     tokens_of):
    fields = {"cache_policy": policy} if policy else {}
    _, outputs, _, _ = await generate(inference, TEXT, stopping=budget(30),
                                      response={"logprobs": 0}, **fields)
    prompt = await tokens_of(TEXT)
    written = ids_of(outputs)
    logprobs = [p.chosen.logprob for o in outputs for p in o.logprobs]
    values, _, finished = await score(
        inference, as_inputs(ids=prompt + written)[0], **fields)
    assert finished.tokens == len(prompt) + 30 == len(values) + 1
    for i, logprob in enumerate(logprobs):
        assert math.isclose(values[len(prompt) + i], logprob,
                            rel_tol=1e-4, abs_tol=1e-4)
    assert math.isclose(finished.log_likelihood_sum, sum(values.values()),
                        rel_tol=1e-5)


async def test_pieces_score_as_one_text(inference):
    whole, _, _ = await score(inference, as_inputs(TEXT)[0])
    cuts = [0, 5, 11, 60, 61, 100, None]
    pieces = [as_inputs(TEXT[a:b])[0] for a, b in zip(cuts, cuts[1:])]
    parts, _, finished = await score(inference, *pieces)
    assert parts == whole and finished.tokens == len(whole) + 1


async def test_score_of_any_length_tells_what_is_evicted(inference):
    policy = sinks(4, 100)
    piece = as_inputs(TEXT * 5)[0]
    values, updates, finished = await score(inference, *[piece] * 4,
                                            cache_policy=policy)
    assert len(values) == finished.tokens - 1 > 800
    told = [p for u in updates for r in u.evicted
            for p in range(r.begin, r.end)]
    assert sorted(told) == list(evicted(finished.cache_policy, 0,
                                        finished.tokens))
    assert finished.usage.visible_tokens == 105


async def test_only_the_sum_if_told_so(inference):
    values, _, finished = await score(inference, as_inputs(TEXT)[0],
                                      per_token=False)
    assert not values and finished.log_likelihood_sum < 0


@pytest.mark.parametrize("text,tokens", [("", 0), ("a", 1)])
async def test_texts_without_a_value(inference, text, tokens):
    values, _, finished = await score(inference, as_inputs(text)[0])
    assert not values and finished.tokens == tokens
    assert finished.log_likelihood_sum == 0


async def test_score_of_more_than_full_holds_fails(inference):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await score(inference, as_inputs(TEXT)[0],
                    cache_policy={"full": {"max_tokens": 9}})
    failure = failures.of_call(error.value)
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "CACHE_FULL")
    assert failure.metadata["limit"] == "9"


# ---- Tokenize, Detokenize ----

@pytest.mark.parametrize("text", [
    TEXT, "", " ", "\n\n\t", "Straße 日本語 🙂👩‍👩‍👧 é ﷽", "a" * 5000,
    "1234567890.123e-7", "<|im_start|>user\nhi<|im_end|>", "\u0000\u0001"],
    ids=range(9))
async def test_text_comes_back(inference, tokens_of, text):
    response = await inference.Detokenize(inference_pb2.DetokenizeRequest(
        token_ids=await tokens_of(text)))
    assert response.text == text


async def test_special_tokens_stay_text(tokens_of):
    assert not set(await tokens_of("<|im_start|><|im_end|>")) & set(range(17))


async def test_special_tokens_are_spelled_if_asked(inference):
    for spell, text in ((False, ""), (True, "<|im_start|>")):
        response = await inference.Detokenize(
            inference_pb2.DetokenizeRequest(token_ids=[1],
                                            spell_special_tokens=spell))
        assert response.text == text


async def test_broken_characters_become_the_replacement(inference, tokens_of):
    ids = await tokens_of("🙂")
    assert len(ids) > 1
    response = await inference.Detokenize(
        inference_pb2.DetokenizeRequest(token_ids=ids[:1]))
    assert "\ufffd" in response.text


async def test_chat_is_rendered(inference):
    message = as_inputs(message="Hi <|im_end|> there")
    response = await inference.Tokenize(inference_pb2.TokenizeRequest(
        inputs=message, add_generation_prompt=True))
    assert response.rendered_text.endswith("<|im_start|>assistant\n")
    assert "Hi <|im_end|> there" in response.rendered_text
    # The one in the content is text: there are no more tokens for it than
    # messages.
    assert list(response.token_ids).count(2) == (
        response.rendered_text.count("<|im_end|>") - 1)


@pytest.mark.parametrize("rpc,fields,field", [
    ("Tokenize", {"inputs": as_inputs("a"), "add_generation_prompt": True},
     "add_generation_prompt"),
    ("Tokenize", {"inputs": as_inputs("a") + as_inputs(message="b")},
     "inputs"),
    ("Tokenize", {"inputs": as_inputs("a"), "model": "another"}, "model"),
    ("Detokenize", {"token_ids": [1, 49152]}, "token_ids[1]"),
    ("Detokenize", {"token_ids": [1], "model": "another"}, "model"),
])
async def test_bad_values_are_named(inference, failure_of, rpc, fields,
                                    field):
    request = getattr(inference_pb2, f"{rpc}Request")(**fields)
    failure = await failure_of(getattr(inference, rpc)(request))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",
                                              "INVALID_FIELD")
    assert failure.field == field
