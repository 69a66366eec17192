"""How fast the CPU backend is, beside what memory allows and llama.cpp.

    tests/benchmarks/run [--with_llama_cpp] [--rounds=N] [--aged_tokens=N]

A round measures each figure once, ours and the other's in turns, with a probe of
the memory's bandwidth before and after each decode: these machines change within
minutes, so a ratio is taken within a round. Printed are medians, with the 10th
and 90th percentile of the rounds. --with_llama_cpp builds it once.

Before the rounds a session reads 1,000,000 tokens under 4 sinks and a window of
1,020 (--aged_tokens), ten minutes, to be compared with one that has just filled
its window.

Ends with 1 if a figure misses its target. Writes speed.json, speed.md and
speed.svg beside this file, or to --out.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys

import standalone  # noqa: F401  first: the others need what it makes
import millraced

import machine
import peer
import report
import served
from plot import draw
from scorer import say

AGED_STEPS = 100  # of one turn
WINDOW_FILLED = 1025


class Rounds:
    """Values of each figure by its key, one a round."""

    def __init__(self):
        self.values = {}

    def add(self, key, value):
        say(f"{key} {value:.4g}")
        self.values.setdefault(key, []).append(value)
        return value

    def median(self, key):
        return statistics.median(self.values[key])


def measure_decode(rounds, model, threads, other):
    """Decode of one session, with a probe on both sides."""
    before = model.bandwidth()
    for depth in (256, 2048):
        key = f"decode_{depth}"
        rate = rounds.add(key, model.decode(1, depth, 64))
        after = model.bandwidth()
        rounds.add("probe", (before + after) / 2e9)
        rounds.add(f"{key}_share",
                   2 * rate * model.bytes_per_token(depth) / (before + after))
        before = after
        if other:
            versus(rounds, key, rate, other.decode(threads, depth, 32))


def measure_phases(rounds, model):
    """Microseconds of each phase of a decode step at 256 tokens."""
    model("phases")
    before = model.bandwidth()
    model.decode(1, 256, 64)
    for phase, seconds in model("phases").items():
        rounds.add(f"phase_{phase}", 1e6 * seconds / 64)
    rounds.add("phase_probe", (before + model.bandwidth()) / 2)


def versus(rounds, key, ours, theirs):
    rounds.add(f"{key}_peer", theirs)
    rounds.add(f"{key}_over_peer", ours / theirs)


def measure_many_rows(rounds, model, threads, other):
    """Prefill, and many sessions at once."""
    rate = rounds.add("prefill_512", model.prefill(512))
    if other:
        versus(rounds, "prefill_512", rate, other.prefill(threads, 512))
    for sessions in (16, 64):
        key = f"batch_{sessions}"
        rate = rounds.add(key, model.decode(sessions, 256, 16))
        if other:
            versus(rounds, key, rate,
                   other.batched_decode(threads, sessions, 256, 16))


def measure_busy(rounds, model):
    quiet = model.decode(1, 256, 64)
    with machine.busy_neighbour():
        rounds.add("busy", model.decode(1, 256, 128) / quiet)


def measure_aged(rounds, model):
    """Turns of an old session and a fresh one."""
    fresh, aged = (model("write", name, AGED_STEPS)["step_seconds"]
                   for name in ("fresh", "aged"))
    rounds.values.setdefault("fresh_steps", []).extend(fresh)
    rounds.values.setdefault("aged_steps", []).extend(aged)
    rounds.add("aged_over_fresh", sum(aged) / sum(fresh))


def measure_served(rounds, model, server):
    """What gRPC takes, and the first token."""
    for sessions, key in ((1, "grpc_tax"), (64, "grpc_tax_64")):
        # Before and after, as the machine changes from second to second.
        before = model.decode(sessions, 256, 64)
        through = served.bench(server, sessions, 224, 129)
        after = model.decode(sessions, 256, 64)
        rounds.add(key, 1 - through["decode_tokens_per_second"] /
                   statistics.mean((before, after)))
    shortest = 128 / model.prefill(128) + 1 / model.decode(1, 256, 16)
    first = served.bench(server, 1, 128, 2)["time_to_first_token_seconds"]
    rounds.add("first_token", first / shortest)


def measure_starting(rounds):
    rounds.add("start_up", served.start_up())
    rounds.add("resident_beyond", served.resident_beyond(256, 65))


def tail(steps):
    return statistics.quantiles(steps, n=1000)[-1]


def measure(options, model):
    """All rounds; the old session is read first."""
    other = peer if options.with_llama_cpp else None
    rounds = Rounds()
    say(f"a session reads {options.aged_tokens:,} tokens")
    model("stream", "aged", options.aged_tokens)
    model("stream", "fresh", WINDOW_FILLED)
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", flush=True)
        measure_decode(rounds, model, options.threads, other)
        measure_many_rows(rounds, model, options.threads, other)
        measure_phases(rounds, model)
        measure_busy(rounds, model)
        for _ in range(options.turns):
            measure_aged(rounds, model)
        with millraced.running("--speculation=none") as server:
            measure_served(rounds, model, server)
        measure_starting(rounds)
    rounds.add("aged_tail_over_fresh", tail(rounds.values.pop("aged_steps")) /
               tail(rounds.values.pop("fresh_steps")))
    say("")
    return rounds.values


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--with_llama_cpp", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=5,
                        help="of an old session and a fresh one, in each round")
    parser.add_argument("--threads", type=int,
                        default=len(os.sched_getaffinity(0)))
    parser.add_argument("--aged_tokens", type=int, default=1_000_000)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent)
    options = parser.parse_args()
    about = {"machine": machine.description(), "threads": options.threads,
             "rounds": options.rounds, "aged_tokens": options.aged_tokens}
    if options.with_llama_cpp:
        peer.build()
        about["peer"] = peer.version()
    with machine.model(f"--threads={options.threads}") as model:
        about["model"] = model.about
        values = measure(options, model)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.json").write_text(
        json.dumps({"about": about, "values": values}, indent=1) + "\n")
    text = report.text(about, values)
    (options.out / "speed.md").write_text(text)
    draw(values, options.out / "speed.svg")
    print(text)
    sys.exit(report.missed(values) > 0)


if __name__ == "__main__":
    main()
