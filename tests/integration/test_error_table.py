"""Every reason in the table of common.proto, as a client sees it.

Code, reason, field, figures and whether to retry. Not here, because no client
can bring them about: POLICY_UNSUPPORTED_BY_BACKEND, NONFINITE_LOGITS and
DEVICE_ERROR. In files of their own: MALFORMED_MESSAGE (test_stream_end),
SESSION_NOT_FOUND and SESSION_FENCED (test_resume), SLOW_CONSUMER
(test_slow_reader), DRAINING (test_drain), UNAUTHENTICATED
(test_authorisation).
"""

import math
import os
import signal
import struct
import subprocess

import grpc
import millraced
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from millrace.v1 import (common_pb2, control_pb2, control_pb2_grpc,
                         inference_pb2, inference_pb2_grpc, session_pb2)

import failures
from raw_session import (CHAT, ENDLESS, GREEDY, PLAIN, RawSession, as_inputs,
                         sinks, still_serves)

NAN = math.nan


# ---- INVALID_FIELD ----

BAD_OPENS = {
    "sampling.temperature": {"sampling": {"temperature": NAN}},
    "sampling.temperature ": {"sampling": {"temperature": -0.5}},
    "sampling.temperature  ": {"sampling": {"temperature": 101}},
    "sampling.top_p": {"sampling": {"top_p": 0}},
    "sampling.top_p ": {"sampling": {"top_p": math.inf}},
    "sampling.min_p": {"sampling": {"min_p": 1.5}},
    "sampling.repetition_penalty": {"sampling": {"repetition_penalty": 0}},
    "sampling.presence_penalty": {"sampling": {"presence_penalty": 3}},
    "sampling.frequency_penalty": {"sampling": {"frequency_penalty": NAN}},
    "sampling.penalty_window_tokens": {
        "sampling": {"penalty_window_tokens": 8193}},
    "sampling.speculation": {"sampling": {"speculation": 7}},
    "sampling.logit_bias[0].token_id": {
        "sampling": {"logit_bias": [{"token_id": 49152}]}},
    "sampling.logit_bias[1].bias": {
        "sampling": {"logit_bias": [{"token_id": 1, "bias": 1},
                                    {"token_id": 2, "bias": NAN}]}},
    "sampling.logit_bias[1].token_id": {
        "sampling": {"logit_bias": [{"token_id": 1}, {"token_id": 1}]}},
    "sampling.logit_bias": {
        "sampling": {"logit_bias": [{"token_id": i} for i in range(1025)]}},
    "stopping.max_tokens": {"stopping": {"max_tokens": 0}},
    "stopping.min_tokens": {"stopping": {"max_tokens": 5, "min_tokens": 6}},
    "stopping.stop_strings[0]": {"stopping": {"stop_strings": [""]}},
    "stopping.stop_strings[1]": {"stopping": {"stop_strings": ["a",
                                                               "b" * 257]}},
    "stopping.stop_strings": {"stopping": {"stop_strings": ["a"] * 17}},
    "stopping.stop_token_ids[0]": {"stopping": {"stop_token_ids": [2**31]}},
    "stopping.stop_token_ids": {"stopping": {"stop_token_ids": [1] * 1025}},
    "stopping.time_limit": {
        "stopping": {"time_limit": duration_pb2.Duration(seconds=0)}},
    "stopping.repetition_guard": {"stopping": {"repetition_guard": 3}},
    "response.logprobs": {"response": {"logprobs": 21}},
    "response.cache_update_interval_tokens": {
        "response": {"cache_update_interval_tokens": 0}},
    "cache_policy": {"cache_policy": {}},
    "model": {"model": "another"},
    "client_tag": {"client_tag": "x" * 129},
    "format": {"format": 77},
    "idle_timeout": {"idle_timeout": duration_pb2.Duration(seconds=0)},
    "idle_timeout ": {"idle_timeout": duration_pb2.Duration(seconds=10**9)},
    "detach_timeout": {"detach_timeout": duration_pb2.Duration(seconds=-1)},
    "rollback_tokens": {"rollback_tokens": 8193},
    "required_features": {"required_features": ["x"] * 65},
}


@pytest.mark.parametrize("field", BAD_OPENS)
async def test_invalid_field_of_open(channel, field):
    failure = await RawSession(channel).open_fails(**BAD_OPENS[field])
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",
                                              "INVALID_FIELD")
    assert failure.field == field.strip()
    assert failure.retry_after is None and failure.pushback_ms is None
    # It names the thing; people read it.
    assert field.strip().split(".")[-1].split("[")[0] in failure.message


BAD_APPENDS = {
    "inputs": {"inputs": []},
    "inputs[0]": {"inputs": [common_pb2.Input()]},
    "inputs[1].token_ids.ids[2]": {
        "inputs": as_inputs("a") + as_inputs(ids=[1000, 1001, 49152])},
    "inputs[0].token_ids.ids[0]": {"inputs": as_inputs(ids=[2])},
    "inputs[0].text_with_special_tokens": {
        "inputs": [common_pb2.Input(text_with_special_tokens="<|im_end|>")]},
    "then_generate.sampling.top_p": {
        "inputs": as_inputs("a"),
        "then_generate": {"sampling": {"top_p": NAN}}},
}


@pytest.mark.parametrize("field", BAD_APPENDS)
async def test_invalid_field_of_append(sessions, field):
    session = await sessions(format=PLAIN)
    seq = await session.send(
        append=session_pb2.AppendInput(**BAD_APPENDS[field]))
    failure = await session.rejected(seq)
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",
                                              "INVALID_FIELD")
    assert failure.field == field
    seq = await session.append("good")
    assert (await session.event("input_accepted",
                                client_seq=seq)).text_position == 0


async def test_a_turn_goes_with_the_last_piece(sessions):
    session = await sessions(format=PLAIN)
    seq = await session.append("a", more_follows=True, then_generate={})
    assert (await session.rejected(seq)).field == "then_generate"


@pytest.mark.parametrize("message", [
    {"text": "no role"}, {"role": 9, "text": "x"}, {"role": "ROLE_USER"}],
    ids=["no role", "unknown role", "no content"])
async def test_invalid_field_of_message(sessions, message):
    session = await sessions(format=CHAT)
    seq = await session.send(append=session_pb2.AppendInput(inputs=[
        common_pb2.Input(message=common_pb2.ChatMessage(**message))]))
    failure = await session.rejected(seq)
    assert failure.reason == "INVALID_FIELD"
    assert failure.field.startswith("inputs[0].message")


@pytest.mark.parametrize("request_fields,field", [
    ({"inputs": []}, "inputs"),
    ({"inputs": as_inputs("")}, "inputs"),
    ({"inputs": as_inputs("a") + as_inputs(message="b")}, "inputs"),
    ({"inputs": as_inputs(ids=[49152])}, "inputs[0].token_ids.ids[0]"),
    ({"inputs": as_inputs("a"), "sampling": {"top_p": NAN}},
     "sampling.top_p"),
    ({"inputs": as_inputs("a"), "model": "another"}, "model"),
    ({"inputs": as_inputs("a"), "cache_policy": {}}, "cache_policy"),
], ids=lambda value: value if isinstance(value, str) else "")
async def test_invalid_field_of_generate(inference, failure_of, channel,
                                         request_fields, field):
    failure = await failure_of(inference.Generate(
        inference_pb2.GenerateRequest(**request_fields)))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",
                                              "INVALID_FIELD")
    assert failure.field == field
    await still_serves(channel)


# ---- UNKNOWN_MESSAGE ----

async def test_unknown_message(sessions):
    session = await sessions(format=PLAIN)
    newer = session_pb2.ConnectRequest.FromString(b"\xfa\x01\x00")  # field 31
    newer.client_seq = 2
    await session.call.write(newer)
    failure = await session.rejected(2)
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",
                                              "UNKNOWN_MESSAGE")
    session._seq = 2
    await session.event("input_queued", client_seq=await session.append("on"))


# ---- INVALID_CACHE_POLICY ----

BAD_POLICIES = {
    "zero window": ({"window": {"window_tokens": 0}},
                    "cache_policy.window.window_tokens"),
    "zero window beside sinks": (sinks(4, 0),
                                 "cache_policy.sinks.window_tokens"),
    "huge window": ({"window": {"window_tokens": 2**32 - 1}},
                    "cache_policy.window.window_tokens"),
    "above the trained context": (sinks(4, 8188),
                                  "cache_policy.sinks.window_tokens"),
    "huge sinks": (sinks(2**32 - 1, 100), "cache_policy.sinks.sink_tokens"),
    "full above the trained context": ({"full": {"max_tokens": 8193}},
                                       "cache_policy.full.max_tokens"),
    "full of nothing": ({"full": {"max_tokens": 0}},
                        "cache_policy.full.max_tokens"),
}


@pytest.mark.parametrize("name", BAD_POLICIES)
async def test_invalid_cache_policy(channel, inference, failure_of, name):
    policy, field = BAD_POLICIES[name]
    for failure in (
            await RawSession(channel).open_fails(cache_policy=policy),
            await failure_of(inference.Generate(
                inference_pb2.GenerateRequest(inputs=as_inputs("a"),
                                              cache_policy=policy)))):
        assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",
                                                  "INVALID_CACHE_POLICY")
        assert failure.field.startswith(field.rsplit(".", 1)[0])
        assert any(c.isdigit() for c in failure.message)  # the numbers


async def test_the_largest_cache_is_taken(sessions):
    session = await sessions(format=PLAIN, cache_policy=sinks(4, 8187),
                             rollback_tokens=0)
    assert session.opened.reserved_bytes > 0


async def test_a_system_prompt_that_does_not_fit(channel):
    failure = await RawSession(channel).open_fails(
        format=CHAT, system_prompt="word " * 9000)
    assert failure.reason == "INVALID_CACHE_POLICY"


async def test_memory_above_the_cap_of_a_session(start_server):
    server = start_server("--session_kv_memory=8MiB")
    async with grpc.aio.insecure_channel(server.address) as channel:
        failure = await RawSession(channel).open_fails(
            format=PLAIN, cache_policy={"window": {"window_tokens": 1024}})
        assert failure.reason == "INVALID_CACHE_POLICY"
        await still_serves(channel)  # the default policy takes what there is


# ---- FEATURE_MISSING, NOT_OPEN, ALREADY_OPEN ----

async def test_feature_missing(channel):
    failure = await RawSession(channel).open_fails(
        required_features=["time travel"])
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "FEATURE_MISSING")
    assert "time travel" in failure.message


@pytest.mark.parametrize("arm", ["append", "generate", "interrupt", "update",
                                 "reset", "close"])
async def test_not_open(channel, arm):
    session = RawSession(channel)
    session._start_stream()
    await session.send(**{arm: {}})
    failure = await session.stream_end()
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "NOT_OPEN")


async def test_not_open_after_close(channel):
    session = RawSession(channel)
    await session.open(format=PLAIN)
    await session.append("word " * 500)
    await session.send(close=session_pb2.CloseSession())
    await session.append("too late")
    failure = await session.stream_end()
    # Either the close was first, or the message that must not follow it.
    assert failure is None or failure.reason == "NOT_OPEN"


@pytest.mark.parametrize("arm", ["open", "resume"])
async def test_already_open(channel, arm):
    session = RawSession(channel)
    await session.open(format=PLAIN)
    await session.send(**{arm: {}})
    failure = await session.stream_end()
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "ALREADY_OPEN")
    # Only the stream ends.
    await session.resume()
    await session.event("resumed")
    await session.drop()


async def test_score_needs_one_setup(inference):
    for messages, reason in (
            ([{"input": as_inputs("a")[0]}], "NOT_OPEN"),
            ([{"setup": {}}, {"setup": {}}], "ALREADY_OPEN")):
        call = inference.Score()
        for message in messages:
            await call.write(inference_pb2.ScoreRequest(**message))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            while await call.read() is not grpc.aio.EOF:
                pass
        failure = failures.of_call(error.value)
        assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                                  reason)


# ---- Rejections that depend on the moment ----

async def in_a_turn(sessions):
    session = await sessions(format=PLAIN, sampling=GREEDY)
    await session.append("On", then_generate={"stopping": ENDLESS})
    await session.event("output")
    return session, lambda: session.generate()


async def idle(sessions):
    session = await sessions(format=PLAIN)
    return session, lambda: session.interrupt()


async def turn_over(sessions):
    session = await sessions(format=PLAIN)
    return session, lambda: session.append("a", only_in_turn_started_by=77)


async def between_messages(sessions):
    session = await sessions(format=CHAT)
    return session, lambda: session.append("loose")


async def after_a_rejected_piece(sessions):
    session = await sessions(format=PLAIN)
    await session.append(ids=[10**6], more_follows=True)
    return session, lambda: session.append("rest")


async def beyond_the_next(sessions):
    session = await sessions(format=PLAIN)
    return session, lambda: session.send(
        client_seq=50, interrupt=session_pb2.Interrupt())


async def into_a_full_cache(sessions):
    session = await sessions(format=PLAIN,
                             cache_policy={"full": {"max_tokens": 8}})
    return session, lambda: session.append("word " * 20)


@pytest.mark.parametrize("state,reason", [
    (in_a_turn, "TURN_RUNNING"), (idle, "NO_TURN"), (turn_over, "TURN_OVER"),
    (between_messages, "NOT_IN_MESSAGE"),
    (after_a_rejected_piece, "PREVIOUS_REJECTED"),
    (beyond_the_next, "SEQUENCE_GAP"), (into_a_full_cache, "CACHE_FULL"),
], ids=lambda value: value if isinstance(value, str) else "")
async def test_rejected_and_nothing_changed(sessions, state, reason):
    session, act = await state(sessions)
    seq = await act()
    failure = await session.rejected(seq)
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", reason)
    assert failure.message
    if reason == "SEQUENCE_GAP":
        assert failure.metadata == {"expected_seq": "2"}
    if reason == "CACHE_FULL":
        assert "8" in failure.message
    await session.update(response={"logprobs": 1})
    await session.event("options_updated")


async def test_cache_full_of_generate(inference, failure_of):
    full = {"full": {"max_tokens": 8}}
    failure = await failure_of(inference.Generate(
        inference_pb2.GenerateRequest(inputs=as_inputs("word " * 20),
                                      cache_policy=full)))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "CACHE_FULL")


async def test_input_queue_full(start_server):
    server = start_server("--max_pending_input_bytes=1KiB")
    async with grpc.aio.insecure_channel(server.address) as channel:
        session = RawSession(channel)
        opened = await session.open(format=PLAIN, sampling=GREEDY)
        assert opened.max_pending_input_bytes == 1024
        seq = await session.append("x" * 1025)
        failure = await session.rejected(seq)  # alone larger
        assert failure.reason == "INVALID_FIELD"
        assert "1024" in failure.message
        turn = await session.append("On",
                                    then_generate={"stopping": ENDLESS})
        await session.event("output")
        first = await session.append("x" * 1000, after_turn={})
        await session.event("input_queued", client_seq=first)
        second = await session.append("y" * 1000, after_turn={})
        failure = await session.rejected(second)
        assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED",
                                                  "INPUT_QUEUE_FULL")
        await session.interrupt()
        await session.turn(turn)
        await session.event("input_accepted", client_seq=first)
        again = await session.append("y" * 1000)
        await session.event("input_accepted", client_seq=again)
        await session.close()


# ---- No room ----

def assert_try_again(failure, reason):
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", reason)
    assert failure.retry_after > 0
    assert failure.pushback_ms > 0


async def test_session_limit(start_server):
    server = start_server("--max_sessions=1")
    async with grpc.aio.insecure_channel(server.address) as channel:
        only = RawSession(channel)
        await only.open(format=PLAIN)
        assert_try_again(await RawSession(channel).open_fails(format=PLAIN),
                         "SESSION_LIMIT")
        await only.close()
        await still_serves(channel)


async def test_kv_budget(start_server):
    """Memory is what a session reserves; the last one does not fit."""
    server = start_server("--kv_memory=64MiB")
    async with grpc.aio.insecure_channel(server.address) as channel:
        opened = []
        for _ in range(100):
            session = RawSession(channel)
            session._start_stream()
            await session.send(open=session_pb2.OpenSession(
                format=PLAIN, cache_policy=sinks(4, 500)))
            try:
                session.opened = await session.event("opened")
            except AssertionError:
                break
            opened.append(session)
        assert_try_again(await session.stream_end(), "KV_BUDGET")
        reserved = opened[0].opened.reserved_bytes
        assert len(opened) == (64 << 20) // reserved
        for session in opened:
            await session.close()
        await still_serves(channel)


async def test_more_than_all_memory_is_no_reason_to_retry(start_server,
                                                         failure_of):
    """Nothing that ends makes room for it: the value is wrong."""
    server = start_server("--kv_memory=16MiB")
    async with grpc.aio.insecure_channel(server.address) as channel:
        policy = {"window": {"window_tokens": 2000}}
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for failure in (
                await RawSession(channel).open_fails(format=PLAIN,
                                                     cache_policy=policy),
                await failure_of(stub.Generate(inference_pb2.GenerateRequest(
                    inputs=as_inputs("a"), cache_policy=policy)))):
            assert failure.reason == "INVALID_CACHE_POLICY"
            assert failure.retry_after is None
        await still_serves(channel)  # the default takes what there is


async def test_queue_full(start_server, failure_of):
    server = start_server("--kv_memory=16MiB", "--max_queue=1",
                          "--queue_timeout=300ms")
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = inference_pb2.GenerateRequest(
            inputs=as_inputs("The river"), cache_policy=sinks(4, 700),
            stopping=ENDLESS)
        running = stub.Generate(request)
        assert (await running.read()).HasField("accepted")
        waiting = stub.Generate(request)
        control = control_pb2_grpc.ControlServiceStub(channel)

        async def load():
            return await control.GetLoad(control_pb2.GetLoadRequest())

        while not (await load()).waiting_requests:
            pass
        assert_try_again(await failure_of(stub.Generate(request)),
                         "QUEUE_FULL")
        # It waited for memory until the timeout.
        assert_try_again(await failure_of(waiting), "KV_BUDGET")
        running.cancel()
        while (await load()).reserved_blocks:  # a session does not wait for it
            pass
        await still_serves(channel)


async def test_message_over_size(channel, inference, failure_of):
    failure = await failure_of(inference.Tokenize(
        inference_pb2.TokenizeRequest(inputs=as_inputs("x" * (5 << 20)))))
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "")
    await still_serves(channel)


# ---- Chat templates ----

@pytest.fixture(scope="module")
def patched_model(tmp_path_factory):
    """Copies the model with some bytes replaced by as many others."""
    def patch(name, old, new):
        assert len(old) == len(new)
        data = open(millraced.model(), "rb").read()
        assert data.count(old) == 1
        path = tmp_path_factory.mktemp("models") / name
        path.write_bytes(data.replace(old, new))
        return path
    return patch


TEMPLATE_KEY = b"tokenizer.chat_template"


def _template():
    data = open(millraced.model(), "rb").read(8 << 20)
    at = data.index(TEMPLATE_KEY) + len(TEMPLATE_KEY) + 4  # its type
    (size,) = struct.unpack_from("<Q", data, at)
    return data[at + 8:at + 8 + size]


@pytest.mark.parametrize("reason", ["NO_CHAT_TEMPLATE",
                                    "CHAT_TEMPLATE_NOT_INCREMENTAL"])
async def test_models_that_cannot_chat(patched_model, reason):
    if reason == "NO_CHAT_TEMPLATE":
        path = patched_model("none.gguf", TEMPLATE_KEY,
                             b"general.chat_template_x")
    else:  # rewrites the earlier messages: only the last is there
        old = _template()
        new = (b"{% for message in messages %}{% if loop.last %}"
               b"{{ message['content'] }}{% endif %}{% endfor %}")
        path = patched_model("rewrites.gguf", old, new + b" " * (
            len(old) - len(new)))
    with millraced.running(model_path=path) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            control = control_pb2_grpc.ControlServiceStub(channel)
            info = (await control.GetModelInfo(
                control_pb2.GetModelInfoRequest())).model.chat_template
            assert not info.usable
            assert info.unusable_reason == reason and info.explanation
            failure = await RawSession(channel).open_fails(format=CHAT)
            assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                                      reason)
            # Without a format it is plain text.
            session = RawSession(channel)
            assert (await session.open()).format == PLAIN
            await session.close()
    path.unlink()


# ---- MODEL_LOADING ----

async def test_model_loading(tmp_path):
    """Health is there from the start; everything else says: retry."""
    socket = tmp_path / "data"
    process = subprocess.Popen(
        [millraced.program(), f"--model={millraced.model()}",
         f"--listen=unix:{socket}", "--health_listen=127.0.0.1:0",
         "--metrics_listen=127.0.0.1:0", f"--admin_listen=unix:{socket}2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        seen, live = set(), set()
        while True:
            assert process.poll() is None
            if not os.path.exists(socket):
                continue
            async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                control = control_pb2_grpc.ControlServiceStub(channel)
                try:
                    live.add((await health.Check(
                        health_pb2.HealthCheckRequest(service="liveness"))
                    ).status)
                    await control.GetServerInfo(
                        control_pb2.GetServerInfoRequest())
                    break
                except grpc.aio.AioRpcError as error:
                    failure = failures.of_call(error)
                    assert failure.code == "UNAVAILABLE"
                    if failure.reason:
                        seen.add(failure.reason)
                        assert failure.retry_after > 0
        assert seen == {"MODEL_LOADING"}
        assert live == {health_pb2.HealthCheckResponse.SERVING}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
