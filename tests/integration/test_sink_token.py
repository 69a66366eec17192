"""A server that is told of a dedicated sink token: it stands in front of every
text, and is the only sink by default.

The default model was trained without one, so an ordinary token plays the part:
a server without the flag must write and score the same after that token.
"""

import json

import grpc
import millraced
import pytest
from client import run
from millrace.v1 import (control_pb2, control_pb2_grpc, inference_pb2,
                         inference_pb2_grpc)

from raw_session import (CHANNEL_OPTIONS, CHAT, GREEDY, PLAIN, RawSession,
                         as_inputs, budget)
from test_inference import generate, ids_of, score

SINK = 198  # a line break
TEXT = "The river runs through the old town. In spring the water is"


@pytest.fixture(scope="module")
def sunk():
    with millraced.running(f"--sink_token_id={SINK}") as server:
        yield server


@pytest.fixture
async def channel(sunk):
    async with grpc.aio.insecure_channel(
            sunk.address, options=CHANNEL_OPTIONS) as channel:
        yield channel


@pytest.fixture
async def plain(server):
    """Of a server that knows of no sink token."""
    async with grpc.aio.insecure_channel(
            server.address, options=CHANNEL_OPTIONS) as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


@pytest.fixture
async def ids(plain):
    """Of TEXT alone."""
    answer = await plain.Tokenize(
        inference_pb2.TokenizeRequest(inputs=as_inputs(TEXT)))
    return list(answer.token_ids)


async def test_tokenize_puts_it_in_front(tokens_of, ids):
    assert SINK not in ids
    assert await tokens_of(TEXT) == [SINK] + ids


async def test_a_session_begins_with_it(channel, plain, ids):
    """Token 0 of 1 + n, and what is written is written after it."""
    session = RawSession(channel)
    opened = await session.open(
        format=PLAIN, sampling=GREEDY,
        cache_policy={"sinks": {"window_tokens": 40}})
    assert list(opened.system_token_ids) == [SINK]
    policy = opened.effective_options.cache_policy.sinks
    assert (policy.sink_tokens, policy.window_tokens) == (1, 40)
    seq = await session.append(TEXT, then_generate={"stopping": budget(60)})
    accepted = await session.event("input_accepted")
    assert accepted.text_position == 1 and accepted.tokens == len(ids)
    usage = (await session.turn(seq)).usage
    end = 1 + len(ids) + 60
    assert usage.input_tokens == 1 + len(ids)
    assert usage.text_position == end
    assert usage.visible_tokens == 1 + 40 + 1
    assert usage.evicted_tokens == end - 42
    update = await session.event("cache_update")
    assert (update.sink_tokens, update.evicted[0].begin) == (1, 1)
    await session.close()
    session.check()

    _, outputs, _, _ = await generate(
        plain, inputs=as_inputs(ids=[SINK] + ids), stopping=budget(60),
        cache_policy={"sinks": {"sink_tokens": 1, "window_tokens": 40}})
    assert ids_of(outputs) == session.ids()


async def test_a_chat_begins_with_it_before_the_template(channel):
    session = RawSession(channel)
    opened = await session.open(format=CHAT, sampling=GREEDY,
                                system_prompt="Be brief.")
    begin = list(opened.system_token_ids)
    assert begin[0] == SINK and begin[1] == 1  # <|im_start|>
    seq = await session.append(message="Hi",
                               then_generate={"stopping": budget(4)})
    accepted = await session.event("input_accepted")
    assert accepted.text_position == len(begin)
    await session.turn(seq)
    await session.close()
    session.check()


async def test_generate_reads_it_first(inference, plain, ids):
    accepted, outputs, _, finished = await generate(
        inference, TEXT, stopping=budget(12), cache_policy={"sinks": {}})
    assert accepted.input_tokens == 1 + len(ids)
    assert accepted.effective_options.cache_policy.sinks.sink_tokens == 1
    assert finished.usage.input_tokens == 1 + len(ids)
    _, expected, _, _ = await generate(
        plain, inputs=as_inputs(ids=[SINK] + ids), stopping=budget(12))
    assert ids_of(outputs) == ids_of(expected)


async def test_score_reads_it_and_does_not_score_it(inference, plain, ids):
    values, _, finished = await score(inference, *as_inputs(TEXT))
    assert list(values) == list(range(1, 1 + len(ids)))
    assert finished.tokens == 1 + len(ids)
    expected, _, _ = await score(plain, *as_inputs(ids=[SINK] + ids))
    assert values == pytest.approx(expected, abs=1e-5)


async def test_what_the_server_tells(channel, server, sunk):
    control = control_pb2_grpc.ControlServiceStub(channel)
    model = (await control.GetModelInfo(
        control_pb2.GetModelInfoRequest())).model
    assert model.tokenizer.sink_token_id == SINK
    assert not model.tokenizer.adds_beginning_of_text
    told = (await control.GetServerInfo(
        control_pb2.GetServerInfoRequest())).policies
    defaults = {(p.name, o.name): o.default_value
                for p in told for o in p.options}
    assert defaults["sinks", "sink_tokens"] == "1"
    assert defaults["shift", "n_keep"] == "1"
    assert f"sink token       {SINK}, in front" in run(sunk, "info").stdout
    assert "sink token " not in run(server, "info").stdout
    full = json.loads(run(server, "info", "--json").stdout)
    assert "sink_token_id" not in full["model"]["tokenizer"]


def test_the_client_scores_as_many_tokens_as_it_is_told(sunk, tmp_path):
    (tmp_path / "text").write_text(TEXT * 9)
    done = run(sunk, "score", f"--file={tmp_path / 'text'}",
               "--max_input_tokens=100", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] == 100
