"""What ends the server before it serves: one clear line, exit 1."""

import os
import random
import re
import signal
import subprocess

import grpc
import millraced
import pytest

from raw_session import GREEDY, PLAIN, RawSession, budget

SECONDS = 60


def run(*flags, model=None):
    """Runs millraced to its end; (exit code, stdout, stderr)."""
    model = model if model is not None else millraced.model()
    done = subprocess.run(
        [millraced.program(), f"--model={model}", *flags],
        capture_output=True, text=True, timeout=SECONDS, errors="replace")
    return done.returncode, done.stdout, done.stderr


def assert_one_line(code, out, err, *words):
    assert code == 1
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("millraced: ")
    for word in words:
        assert word in lines[0], err


# ---- Flags ----

BAD_FLAGS = [
    ("--cache_policy=lru", ["--cache_policy", "lru", "sinks"]),
    ("--cache_policy=sinks:speed=9", ["--cache_policy", "speed"]),
    ("--cache_policy=sinks:sink_tokens=4,sink_tokens=5",
     ["--cache_policy", "sink_tokens"]),
    ("--cache_policy=sinks:window_tokens=9000",
     ["--cache_policy", "9000", "8192"]),
    ("--cache_policy=window:window_tokens=0", ["--cache_policy", "window"]),
    ("--backend=tpu", ["--backend", "tpu", "onednn", "reference"]),
    ("--cpu_kernels=neon", ["neon"]),
    ("--sink_token_id=49152", ["--sink_token_id=49152", "0 to 49151"]),
    ("--sink_token_id=-1", ["--sink_token_id=-1", "0 to 49151"]),
    ("--sink_token_id=99999999999", ["--sink_token_id=99999999999",
                                     "0 to 49151"]),
    ("--kv_dtype=f8", ["--kv_dtype", "f8", "bf16", "int8"]),
    ("--model_sha256=xyz", ["--model_sha256", "xyz"]),
    ("--model_sha256=" + "0" * 64, ["SHA-256"]),
    ("--threads=-1", ["--threads", "-1"]),
    ("--prefill_chunk_tokens=-1", ["--prefill_chunk_tokens", "-1"]),
    ("--heartbeat_interval=0s", ["--heartbeat_interval"]),
    ("--listen=localhost:9000", ["--listen", "localhost"]),
    ("--listen=127.0.0.1:99999", ["--listen", "99999"]),
    ("--admin_listen=0.0.0.0:0", ["--admin_listen", "0.0.0.0"]),
    ("--tls_cert=/nowhere", ["--tls_cert", "--tls_key"]),
    ("--auth_token_file=/nowhere", ["--auth_token_file"]),
]


@pytest.mark.parametrize("flag,words", BAD_FLAGS,
                         ids=[f for f, _ in BAD_FLAGS])
def test_a_wrong_value_is_named(flag, words):
    assert_one_line(*run("--check_config", flag), *words)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_plaintext_stays_on_loopback(address):
    for check in ([], ["--check_config"]):
        assert_one_line(*run(f"--listen={address}", *check), "--listen",
                        address, "--insecure_allow_remote")


def test_plaintext_may_leave_if_told_so():
    with millraced.running("--listen=0.0.0.0:0", "--insecure_allow_remote"):
        pass


@pytest.mark.parametrize("flag", ["--nonsense=1", "--threads=many",
                                  "--sink_token_id=bos", "--kv_memory=lots", "--drain_timeout=soon"])
def test_flags_that_do_not_parse(flag):
    code, out, err = run("--check_config", flag)
    assert code != 0 and out == ""
    assert flag.split("=")[0].lstrip("-") in err


def test_an_argument_that_is_no_flag():
    assert_one_line(*run("serve"), "serve")


def test_no_model():
    assert_one_line(*run("--check_config", model=""), "--model")


def test_a_good_configuration_is_checked():
    assert run("--check_config") == (0, "ok\n", "")


def test_a_port_that_is_taken():
    with millraced.running() as server:
        taken = server.address
        assert_one_line(*run(f"--listen={taken}", "--health_listen=127.0.0.1:0",
                             "--admin_listen=127.0.0.1:0",
                             "--metrics_listen=127.0.0.1:0"), "--listen")


def test_flags_from_a_file_and_from_the_environment(tmp_path):
    file = tmp_path / "flags"
    file.write_text("# a comment\n--max_sessions=7\n--listen=127.0.0.1:0\n")
    printed = subprocess.run(
        [millraced.program(), f"--flagfile={file}", "--fromenv=threads",
         "--print_config"], capture_output=True, text=True,
        env={**os.environ, "FLAGS_threads": "2", "FLAGS_max_queue": "9"})
    assert printed.returncode == 0
    flags = dict(re.findall(r"^--(\w+)=(.*)$", printed.stdout, re.M))
    assert flags["max_sessions"] == "7" and flags["threads"] == "2"
    assert flags["max_queue"] == "64"  # not named in --fromenv
    again = tmp_path / "again"
    again.write_text(printed.stdout)
    assert subprocess.run(
        [millraced.program(), f"--flagfile={again}", "--print_config"],
        capture_output=True, text=True).stdout == printed.stdout


def test_help_and_version():
    helped = subprocess.run([millraced.program(), "--help"],
                            capture_output=True, text=True)
    for word in ("--cache_policy", "--listen", "127.0.0.1:9000", "SIGTERM"):
        assert word in helped.stdout
    version = subprocess.run([millraced.program(), "--version"],
                             capture_output=True, text=True)
    assert version.returncode == 0
    assert re.search(r"\d+\.\d+\.\d+", version.stdout)


# ---- Model files ----

@pytest.fixture(scope="module")
def start_of_model():
    with open(millraced.model(), "rb") as file:
        return file.read(4 << 20)


def refused(path, *words):
    """By --check_config and by the server itself, neither of which hangs."""
    assert_one_line(*run("--check_config", model=path), *words)
    assert_one_line(*run("--listen=127.0.0.1:0", model=path), *words)


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "missing.gguf", "missing.gguf")


def test_a_directory(tmp_path):
    refused(tmp_path, "regular file")


def test_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    refused(tmp_path / "fifo", "regular file")


def test_a_device():
    refused("/dev/zero", "regular file")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty", "empty")


def test_random_bytes(tmp_path):
    (tmp_path / "random").write_bytes(random.Random(1).randbytes(100_000))
    refused(tmp_path / "random", "magic")


@pytest.mark.parametrize("size", [3, 4, 20, 1000, 100_000, 4 << 20])
def test_a_truncated_file(tmp_path, start_of_model, size):
    (tmp_path / "short").write_bytes(start_of_model[:size])
    assert_one_line(*run("--check_config", model=tmp_path / "short"),
                    "short", "byte")


def test_mutated_headers(tmp_path, start_of_model, full):
    """A changed byte is an error with one line, or no change that matters."""
    dice = random.Random(3)
    path = tmp_path / "mutated"
    for _ in range(300 if full else 12):
        data = bytearray(start_of_model)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(400)] = dice.randrange(256)
        path.write_bytes(data)
        assert_one_line(*run("--check_config", model=path))


# ---- Once it runs ----

async def test_the_ready_line_names_ports_that_answer():
    with millraced.running() as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            session = RawSession(channel)
            await session.open(format=PLAIN, sampling=GREEDY)
            seq = await session.append(
                "On", then_generate={"stopping": budget(1)})
            await session.turn(seq)
            await session.close()
        program = [millraced.program(), "healthcheck"]
        assert subprocess.run([*program, server.health]).returncode == 0
        assert subprocess.run([*program, server.health,
                               "readiness"]).returncode == 0
        assert subprocess.run([*program, "127.0.0.1:1"],
                              capture_output=True).returncode != 0
        assert '"event":"ready"' in server.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(number):
    with millraced.running() as server:
        server.process.send_signal(number)
        assert server.wait() == 0


def test_the_reference_backend_serves():
    with millraced.running("--backend=reference") as server:
        assert "reference" in server.log()
