"""llama.cpp, as the other engine: built from the source that a Python package
carries, and asked for the figures that we take of ourselves."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

import machine

PACKAGE = "llama_cpp_python==0.3.36"
TARGETS = ("llama-bench", "llama-batched-bench")
FEATURES = {"avx": "AVX", "avx2": "AVX2", "fma": "FMA", "f16c": "F16C",
            "bmi2": "BMI2", "avx512f": "AVX512",
            "avx512vbmi": "AVX512_VBMI", "avx512_vnni": "AVX512_VNNI",
            "avx512_bf16": "AVX512_BF16", "avx_vnni": "AVX_VNNI"}
HOME = pathlib.Path(os.environ.get(
    "LLAMA_CPP", "~/.cache/millrace/llama.cpp")).expanduser()


def build():
    """Builds it once; takes about 15 minutes on two cores."""
    if all((HOME / "build/bin" / name).exists() for name in TARGETS):
        return
    print("building llama.cpp, once; about 15 minutes", file=sys.stderr)
    HOME.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps",
                    "--no-binary=llama_cpp_python", f"--dest={HOME}", PACKAGE],
                   check=True)
    with tarfile.open(next(HOME.glob("*.tar.gz"))) as archive:
        archive.extractall(HOME)
    source = next(HOME.glob("*/vendor/llama.cpp"))
    subprocess.run(["cmake", f"-S{source}", f"-B{HOME}/build",
                    "-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF",
                    "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=OFF",
                    *_features()], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", f"{HOME}/build", "-j2", "--target",
                    *TARGETS], check=True, stdout=subprocess.DEVNULL)


def _features():
    """All that this machine has, but AMX: a virtual machine may forbid it, and
    the program then ends with SIGILL."""
    return sorted({f"-DGGML_{FEATURES[flag]}=ON"
                   for flag in machine.cpu_flags() if flag in FEATURES})


def _run(name, *arguments):
    done = subprocess.run(
        [HOME / "build/bin" / name, "-m", os.environ["MILLRACE_MODEL"],
         *map(str, arguments)], check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True)
    return done.stdout


def _bench(threads, *arguments):
    rows = json.loads(_run("llama-bench", "-t", threads, "-r", 1, "-o", "json",
                           *arguments))
    return rows[-1]["avg_ts"]


def version():
    rows = json.loads(_run("llama-bench", "-t", 1, "-r", 1, "-o", "json",
                           "-p", 1, "-n", 0))
    return f"llama.cpp, ggml {rows[0]['build_commit']} ({PACKAGE})"


def prefill(threads, tokens):
    """Tokens per second."""
    return _bench(threads, "-p", tokens, "-n", 0)


def decode(threads, depth, steps):
    return _bench(threads, "-p", 0, "-n", steps, "-d", depth)


def batched_decode(threads, sessions, depth, steps):
    """Of all together; they share one prompt, which is read once."""
    lines = _run("llama-batched-bench", "-t", threads, "-npp", depth, "-ntg",
                 steps, "-npl", sessions, "-pps", "-c",
                 sessions * (depth + steps) + 512, "--output-format", "jsonl")
    rows = [json.loads(line) for line in lines.splitlines()
            if line.startswith("{")]
    return rows[-1]["speed_tg"]
