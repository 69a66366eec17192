"""What is measured: the model in a process of its own, and another process
that takes a core away."""

import contextlib
import json
import os
import subprocess
import sys


class Model:
    """A running model_benchmark: one command, one answer."""

    def __init__(self, process):
        self._process = process
        self.about = self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("model_benchmark ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def __call__(self, *command):
        self._process.stdin.write(" ".join(map(str, command)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def decode(self, sessions, depth, steps, *extra):
        """Tokens per second of all sessions together."""
        seconds = self("decode", sessions, depth, steps, *extra)["seconds"]
        return sessions * steps / seconds

    def prefill(self, tokens):
        return tokens / self("prefill", tokens)["seconds"]

    def bandwidth(self):
        """Bytes per second, of memory of about the model's size."""
        return self("probe", 96)["bytes_per_second"]

    def bytes_per_token(self, depth):
        """What a decode step of one session has to read."""
        return (self.about["weight_bytes"] +
                depth * self.about["kv_bytes_per_token"])


@contextlib.contextmanager
def model(*flags):
    """Runs a model_benchmark until the end of the block."""
    with subprocess.Popen(
            [os.environ["MODEL_BENCHMARK"],
             f"--model={os.environ['MILLRACE_MODEL']}", *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Model(child)
        finally:
            child.kill()


@contextlib.contextmanager
def busy_neighbour():
    """A process that computes for ever."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            yield
        finally:
            child.kill()


def _cpuinfo():
    """What the last core says of itself, by name."""
    with open("/proc/cpuinfo", encoding="ascii") as file:
        pairs = (line.split(":", 1) for line in file if ":" in line)
        return {name.strip(): value.strip() for name, value in pairs}


def cpu_flags():
    """The instructions that it has, as the kernel names them."""
    return _cpuinfo().get("flags", "").split()


def description():
    """Processor, cores, and what of its instructions matters here."""
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {"processor": _cpuinfo().get("model name", "unknown"),
            "cores": len(os.sched_getaffinity(0)),
            "flags": [flag for flag in wanted if flag in cpu_flags()]}
