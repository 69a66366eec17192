"""`millrace` against the real server: output, exit codes, and a terminal."""

import json
import re
import signal
import subprocess

import grpc
import pytest
import terminal
from client import cli, run
from millrace.v1 import control_pb2, control_pb2_grpc


def test_generate_prints_one_json_object(server):
    done = run(server, "generate", "--prompt=Hello", "--max_tokens=5",
               "--temperature=0", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert set(answer) == {"text", "token_ids", "finish_reason", "usage",
                           "timing"}
    assert answer["finish_reason"] == "max_tokens"
    assert len(answer["token_ids"]) == 5
    assert answer["usage"]["generated_tokens"] == 5


def test_generate_is_the_same_each_time_when_greedy(server):
    texts = {run(server, "generate", "--prompt=Count", "--max_tokens=8",
                 "--temperature=0").stdout for _ in range(2)}
    assert len(texts) == 1


def test_raw_prompts_have_no_template_around_them(server):
    tokens = {}
    for flag in ("--raw", "--no-raw"):
        arguments = ["generate", "--prompt=Hello", "--max_tokens=1", "--json"]
        if flag == "--raw":
            arguments.append(flag)
        done = run(server, *arguments)
        tokens[flag] = json.loads(done.stdout)["usage"]["input_tokens"]
    assert tokens["--raw"] == 1
    assert tokens["--no-raw"] > 20


def test_prompts_come_from_standard_input(server):
    flag = run(server, "generate", "--prompt=Hello", "--max_tokens=4",
               "--temperature=0")
    stdin = run(server, "generate", "--max_tokens=4", "--temperature=0",
                stdin="Hello")
    assert stdin.stdout == flag.stdout


def test_tokenize_gives_the_reference_ids(server, tmp_path):
    path = tmp_path / "text"
    path.write_text("Hello, world!")
    done = run(server, "tokenize", f"--file={path}", "--json")
    assert json.loads(done.stdout) == {"token_ids": [19556, 28, 905, 17]}


def test_score_writes_a_line_for_every_token_but_the_first(server, tmp_path):
    text, out = tmp_path / "text", tmp_path / "nll"
    text.write_text("The capital of France is Paris. " * 40)
    done = run(server, "score", f"--file={text}", "--max_input_tokens=100",
               f"--nll_out={out}", "--cache_policy=sinks:window_tokens=32",
               "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    lines = [float(line) for line in out.read_text().splitlines()]
    assert scores["tokens"] == 100
    assert len(lines) == 99
    assert scores["mean_nll"] == pytest.approx(sum(lines) / 99, abs=1e-4)
    assert scores["peak_resident_tokens"] < 100 + 64
    assert scores["perplexity"] > 1


def test_info_names_model_backend_and_policies(server):
    text = run(server, "info").stdout
    for word in ("llama", "trained context", "sinks", "window_tokens"):
        assert word in text
    assert set(json.loads(run(server, "info", "--json").stdout)) == {
        "server", "model"}


def test_sessions_lists_and_ends(server):
    with terminal.Terminal([cli(), f"--server={server.address}", "chat"]) as t:
        t.wait_for("Connected")
        admin = f"--admin={server.admin}"
        listed = json.loads(run(server, "sessions", admin, "--json").stdout)
        assert len(listed["sessions"]) == 1
        ended = run(server, "sessions", admin, "--delete=" +
                    listed["sessions"][0]["session_id"])
        assert ended.returncode == 0, ended.stderr
    gone = run(server, "sessions", admin, "--delete=00")
    assert gone.returncode == 1
    assert "SESSION_NOT_FOUND" in gone.stderr


def test_bench_prints_medians(server):
    done = run(server, "bench", "--prompt_tokens=32", "--max_tokens=32",
               "--rounds=1", "--concurrency=2", "--json")
    figures = json.loads(done.stdout)
    assert figures["decode_tokens_per_second"] > 0
    assert figures["prefill_tokens_per_second"] > 0


def running_requests(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = control_pb2_grpc.ControlServiceStub(channel)
        return stub.GetLoad(control_pb2.GetLoadRequest()).running_requests


def test_bench_ends_when_it_is_interrupted(server):
    with subprocess.Popen(
            [cli(), f"--server={server.address}", "bench", "--concurrency=3",
             "--prompt_tokens=8", "--max_tokens=100000", "--rounds=1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        while running_requests(server) < 3:
            assert bench.poll() is None, bench.stderr.read()
        bench.send_signal(signal.SIGINT)
        _, error = bench.communicate(timeout=60)
    assert bench.returncode == 130, error
    assert "terminate" not in error


@pytest.mark.parametrize("arguments, code, says", [
    (["generate", "--prompt=x", "--temperature=-1"], 1, "INVALID_FIELD"),
    (["generate", "--prompt=x", "--cache_policy=sinks:window_tokens=0"], 1,
     "INVALID_CACHE_POLICY"),
    (["generate", "--prompt=x", "--cache_policy=nonsense"], 2,
     "unknown cache policy 'nonsense'; there are full, window, sinks"),
    (["generate", "--prompt=x", "--speculation=maybe"], 2,
     "--speculation=maybe: must be ngram or none"),
    (["generate", "--prompt=x", "--no_such_flag"], 2, "no_such_flag"),
    (["generate", "--file=/no/such/file"], 2, "cannot read the file"),
    (["bench", "--prompt_tokens=100000", "--rounds=1"], 1, "CACHE_FULL"),
    (["frobnicate"], 2, "frobnicate"),
    ([], 2, "subcommand"),
])
def test_mistakes_have_an_exit_code_and_one_clear_line(server, arguments, code,
                                                       says):
    done = run(server, *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert "terminate" not in done.stderr


def test_invalid_utf8_is_named_by_its_byte(server, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"ab\xff")
    done = run(server, "tokenize", f"--file={path}")
    assert done.returncode == 2
    assert "not valid UTF-8 at byte 2" in done.stderr


def test_no_server_says_how_to_start_one():
    done = subprocess.run([cli(), "--server=127.0.0.1:1", "info"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "deploy/quickstart" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_lists_the_commands():
    done = subprocess.run([cli(), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("chat", "generate", "score", "tokenize", "bench", "info",
                    "sessions"):
        assert command in done.stdout


def test_chat_without_a_terminal_answers_line_by_line(server):
    done = run(server, "chat", "--max_tokens=4", "--temperature=0",
               stdin="Hello\nAgain\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2


LONG = ["--unlimited", "--ignore_end_of_turn", "--repetition_guard=0",
        "--temperature=0"]


def chat(server, *flags):
    return terminal.Terminal([cli(), f"--server={server.address}", "chat",
                              *flags])


def test_in_a_chat_ctrl_c_stops_the_reply_and_keeps_the_session(server):
    with chat(server, *LONG) as t:
        t.wait_for("Connected")
        t.type("Tell me of rivers\r")
        t.wait_for("writing, Ctrl-C stops")
        t.type("\x03")
        t.wait_for("ended: interrupted")
        t.type("/stats\r")
        t.wait_for("text position")
        t.type("/quit\r")
        assert t.exit_code() == 0


def test_in_a_chat_one_can_type_while_it_writes(server):
    with chat(server, *LONG) as t:
        t.wait_for("Connected")
        t.type("Tell me of rivers\r")
        t.wait_for("writing")
        t.type("And of lakes\r")
        t.wait_for("And of lakes")
        t.wait_for("(queued)")
        t.type("/now (in Europe)\r")
        t.wait_for(" (in Europe)")
        t.type("\x03")
        t.wait_for("ended: interrupted")
        t.type("\x03")


def test_in_a_chat_system_and_policy_reopen_and_say_so(server):
    with chat(server, "--max_tokens=4") as t:
        t.wait_for("Connected")
        t.type("/system Be brief.\r")
        t.wait_for("a new session with this system prompt")
        t.type("/policy sinks:window_tokens=100\r")
        t.wait_for("a new session with this cache policy")
        t.type("/policy sinks:window_tokens=9000\r")
        t.wait_for("the old session goes on")
        t.type("/reset\r")
        t.wait_for("the text is forgotten")
        t.type("/help\r")
        t.wait_for("/now TEXT")
        t.type("/frobnicate\r")
        t.wait_for("no such command")
        t.type("\x04")
        assert t.exit_code() == 0


def test_in_a_chat_the_horizon_is_marked(server):
    with chat(server, "--cache_policy=sinks:window_tokens=48",
              "--max_tokens=80", *LONG[1:]) as t:
        t.wait_for("Connected")
        t.type("Tell me of rivers\r")
        t.wait_for("---- forgotten: all before")


def test_no_color_leaves_no_escape_sequences(server):
    done = run(server, "generate", "--prompt=x", "--max_tokens=2", NO_COLOR="1")
    assert not re.search("\x1b", done.stdout + done.stderr)
