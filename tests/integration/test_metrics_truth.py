"""/metrics exports what the table of operations says, and nothing else.

One of everything is driven first: a turn that finishes, is interrupted and
cancelled, a session that is refused, paused and resumed.
"""

import json
import re
import shutil
import subprocess

import grpc
import millraced
import pytest
from millrace.v1 import inference_pb2, inference_pb2_grpc

import exposition
import raw_session
from raw_session import (ENDLESS, GREEDY, PLAIN, RawSession, as_inputs,
                         budget, sinks)

# Name: type and labels.
TABLE = {
    "millrace_requests_waiting": ("gauge", "model"),
    "millrace_requests_running": ("gauge", "model"),
    "millrace_kv_cache_usage_ratio": ("gauge", "model"),
    "millrace_cache_config_info": ("gauge", "model block_size num_blocks"),
    "millrace_time_to_first_token_seconds": ("histogram", "model policy"),
    "millrace_inter_token_latency_seconds": (
        "histogram", "model policy position_class"),
    "millrace_request_duration_seconds": ("histogram", "model"),
    "millrace_queue_duration_seconds": ("histogram", "model"),
    "millrace_requests_finished_total": ("counter", "model reason"),
    "millrace_prompt_tokens_total": ("counter", "model policy"),
    "millrace_generated_tokens_total": ("counter", "model policy"),
    "millrace_evicted_tokens_total": ("counter", "model policy"),
    "millrace_kv_cache_bytes": ("gauge", "model state"),
    "millrace_sessions": ("gauge", "state"),
    "millrace_session_duration_seconds": ("histogram", "reason"),
    "millrace_engine_step_seconds": ("histogram", "model backend"),
    "millrace_engine_batch_rows": ("histogram", "model backend"),
    "millrace_engine_phase_seconds_total": ("counter", "model phase"),
    "millrace_engine_last_step_age_seconds": ("gauge", "model"),
    "millrace_drafted_tokens_total": ("counter", "model"),
    "millrace_accepted_tokens_total": ("counter", "model"),
    "millrace_nonfinite_logits_total": ("counter", "model"),
    "millrace_admission_rejected_total": ("counter", "reason"),
    "millrace_slow_consumer_closed_total": ("counter", ""),
    "millrace_stream_paused_total": ("counter", ""),
    "millrace_outbound_queue_bytes": ("gauge", ""),
    "millrace_drain_state": ("gauge", ""),
    "millrace_model_load_seconds": ("gauge", "model"),
    "millrace_model_loaded": ("gauge", "model"),
    "millrace_build_info": ("gauge", "version commit grpc backend"),
    "millrace_rpc_started_total": ("counter", "method"),
    "millrace_rpc_duration_seconds": ("histogram", "method code"),
    "millrace_process_resident_bytes": ("gauge", ""),
    "millrace_process_open_fds": ("gauge", ""),
    "millrace_memory_usage_ratio": ("gauge", ""),
    "millrace_sessions_resumed_total": ("counter", "reason"),
    "millrace_sessions_expired_total": ("counter", "reason"),
    "millrace_auth_failures_total": ("counter", "reason"),
}


@pytest.fixture(scope="module")
def server():
    with millraced.running("--max_sessions=4") as process:
        yield process


@pytest.fixture
async def driven(server, channel, sessions):
    """One of everything."""
    session = await sessions(format=PLAIN, sampling=GREEDY,
                             cache_policy=sinks(4, 20))
    seq = await session.append("word " * 30,
                               then_generate={"stopping": budget(10)})
    await session.turn(seq)
    seq = await session.generate(stopping=ENDLESS)
    await session.until(lambda: session.ids(turn=2))
    await session.interrupt()
    await session.turn(seq)
    session.cancel()
    await session.stream_end()
    await session.resume()
    await session.event("resumed")
    more = [await sessions(format=PLAIN, cache_policy=sinks(4, 20))
            for _ in range(3)]
    await RawSession(channel).open_fails(format=PLAIN)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    call = stub.Generate(inference_pb2.GenerateRequest(
        inputs=as_inputs("On"), cache_policy={"window": {"window_tokens": 9}},
        stopping=ENDLESS))
    await call.read()
    call.cancel()
    for other in more:
        await other.close()
    return session


async def test_names_types_and_labels_are_those_of_the_table(server, driven):
    text = exposition.text(server)
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    helps = dict(re.findall(r"^# HELP (\w+) (.+)$", text, re.M))
    ours = {n: t for n, t in types.items() if not n.startswith("exposer_")}
    assert ours == {name: kind for name, (kind, _) in TABLE.items()}
    assert ours.keys() <= helps.keys()
    labels = {}
    for name, have, _ in exposition.samples(server):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        base = base if base in types else name
        if not base.startswith("exposer_"):
            labels.setdefault(base, set()).add(
                " ".join(sorted(have.keys() - {"le"})))
    assert labels == {name: {" ".join(sorted(wanted.split()))}
                      for name, (_, wanted) in TABLE.items()}


async def test_counts_are_what_was_done(server, driven, eventually):
    def now(name, **labels):
        return exposition.total(server, "millrace_" + name, **labels)

    assert now("requests_finished_total", reason="max_tokens") >= 1
    assert now("requests_finished_total", reason="interrupted") >= 1
    await eventually(lambda: now("requests_finished_total",
                                 reason="cancelled") >= 1)
    assert now("admission_rejected_total", reason="session_limit") >= 1
    assert now("sessions_resumed_total") >= 1
    assert now("sessions", state="idle") == 1
    assert now("session_duration_seconds_count", reason="client") >= 3
    assert now("model_loaded") == 1
    assert now("kv_cache_bytes", state="reserved") == (
        driven.opened.reserved_bytes)
    assert 0 < now("kv_cache_bytes", state="used") <= (
        driven.opened.reserved_bytes)


async def test_tokens_are_counted_exactly(server, sessions):
    names = ["prompt", "generated", "evicted"]

    def counts():
        return [exposition.total(server, f"millrace_{n}_tokens_total",
                                 policy="sinks") for n in names]

    before = counts()
    session = await sessions(format=PLAIN, sampling=GREEDY,
                             cache_policy=sinks(4, 20))
    seq = await session.append("word " * 30,
                               then_generate={"stopping": budget(10)})
    await session.turn(seq)
    usage = (await session.close()).usage
    after = counts()
    assert [b - a for a, b in zip(before, after)] == [
        usage.input_tokens, usage.generated_tokens, usage.evicted_tokens]
    assert usage.generated_tokens == 10 and usage.evicted_tokens > 0


async def test_label_values_are_from_closed_sets(server, driven, channel):
    """Nothing that a client says becomes a label."""
    nobody = channel.unary_unary("/millrace.v1.Nobody/Nothing")
    with pytest.raises(grpc.aio.AioRpcError):
        await nobody(b"")
    text = exposition.text(server)
    assert "Nobody" not in text
    assert driven.opened.session_id not in text
    codes = {l["code"] for n, l, _ in exposition.samples(server)
             if n == "millrace_rpc_duration_seconds_count"}
    assert codes <= {c.name for c in grpc.StatusCode}


def test_promtool_agrees(server):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    checked = subprocess.run([promtool, "check", "metrics"],
                             input=exposition.text(server), text=True,
                             capture_output=True)
    ours = [line for line in (checked.stdout + checked.stderr).splitlines()
            if not line.startswith("exposer_")]
    assert not ours


async def test_logs_are_json_lines(server, driven):
    lines = server.log().splitlines()
    assert lines
    for line in lines:
        entry = json.loads(line)
        assert {"ts", "level", "event", "msg"} <= entry.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
                            entry["ts"])


async def test_drain_state_is_told(start_server):
    server = start_server("--drain_delay=30s")
    async with grpc.aio.insecure_channel(
            server.address, options=raw_session.CHANNEL_OPTIONS) as channel:
        await channel.channel_ready()
        assert exposition.total(server, "millrace_drain_state") == 0
        server.terminate()
        while exposition.total(server, "millrace_drain_state") != 1:
            assert server.process.poll() is None
        server.terminate()
    assert server.wait() == 0
