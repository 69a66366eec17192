"""One session reads 200,000 tokens and writes 20,000: is anything growing?

    tests/benchmarks/endless/run [--read=N] [--write=N] [--rounds=N]

Memory is the server's resident set, sampled while one session under
sinks:sink_tokens=4,window_tokens=1020 reads a novel and then writes. Time is
compared at the end, between that session and a fresh one whose window has just
been filled: they write 100 tokens in turns, and the paired ratio of their decode
times is taken, so that whatever else the machine does hits both alike.

Prints a table, and writes endless.json and endless.svg beside this file.
"""

import argparse
import asyncio
import json
import lzma
import pathlib
import platform
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests")]
import conftest  # noqa: E402,F401  puts the client's package on the path

import millrace  # noqa: E402
import millraced  # noqa: E402

POLICY = {"sinks": {"sink_tokens": 4, "window_tokens": 1020}}
WINDOW = 1024
PIECE_CHARACTERS = 4096  # about 950 tokens
STEPS = 100  # tokens of one round


def novel():
    path = ROOT / "tests/testdata/war_and_peace.txt.xz"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def connect(server):
    return millrace.connect(server.address, format="FORMAT_PLAIN",
                            cache_policy=POLICY, sampling={"seed": 1})


def stopping(tokens):
    return {"max_tokens": tokens, "ignore_end_of_turn": True,
            "repetition_guard": 0}


class Samples:
    """Memory and speed by text position."""

    def __init__(self, server):
        self.server = server
        self.rows = []
        self._start = time.monotonic()
        self._position = 0

    def take(self, kind, position):
        now = time.monotonic()
        self.rows.append({
            "kind": kind,
            "position": position,
            "resident_bytes": self.server.resident_bytes(),
            "tokens_per_second":
                (position - self._position) / (now - self._start),
        })
        self._start, self._position = now, position
        row = self.rows[-1]
        print(f"\r{kind:5}  position {position:9,}  "
              f"resident {row['resident_bytes'] / 2**20:7.1f} MiB  "
              f"{row['tokens_per_second']:6.0f} tokens/s", end="",
              file=sys.stderr, flush=True)


async def read(session, text, tokens, samples=None):
    """Appends text until so many tokens are read."""
    position = 0
    for start in range(0, len(text), PIECE_CHARACTERS):
        accepted = asyncio.ensure_future(_accepted(session))
        await asyncio.sleep(0)
        await session.append(text[start:start + PIECE_CHARACTERS])
        position = await accepted
        if samples:
            samples.take("read", position)
        if position >= tokens:
            return
    raise RuntimeError(f"the text has {position} tokens only")


async def _accepted(session):
    async for event in session.events():
        if event.kind == "input_accepted":
            return event.message.text_position


async def write(session, tokens):
    """Writes; returns the position and the seconds from first to last token."""
    async for event in session.generate(stopping=stopping(tokens)):
        pass
    usage = event.message.usage
    return usage.text_position, usage.decode.ToTimedelta().total_seconds()


async def measure(server, options):
    text = novel()
    samples = Samples(server)
    ratios = []
    async with connect(server) as aged:
        await read(aged, text, options.read, samples)
        written = 0
        while written < options.write:
            position, _ = await write(aged, 500)
            written += 500
            samples.take("write", position)
        async with connect(server) as fresh:
            await read(fresh, text, 2 * WINDOW)
            await write(fresh, STEPS)
            for _ in range(options.rounds):
                _, old = await write(aged, STEPS)
                _, new = await write(fresh, STEPS)
                ratios.append(old / new)
    print(file=sys.stderr)
    return samples.rows, ratios


def summarise(rows, ratios):
    full = [r for r in rows if r["position"] > 2 * WINDOW]
    memory = [r["resident_bytes"] for r in full]
    ratios = sorted(ratios)
    return {
        "machine": platform.processor() or platform.machine(),
        "tokens": rows[-1]["position"],
        "resident_first_mib": memory[0] / 2**20,
        "resident_last_mib": memory[-1] / 2**20,
        "resident_drift": (max(memory) - memory[0]) / memory[0],
        "aged_over_fresh_median": statistics.median(ratios),
        "aged_over_fresh_p10": ratios[len(ratios) // 10],
        "aged_over_fresh_p90": ratios[len(ratios) * 9 // 10],
        "rounds": len(ratios),
    }


def draw(rows, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    from matplotlib import pyplot

    figure, (memory, speed) = pyplot.subplots(
        2, 1, sharex=True, figsize=(8, 4.5), layout="constrained")
    positions = [r["position"] / 1000 for r in rows]
    memory.plot(positions, [r["resident_bytes"] / 2**20 for r in rows])
    memory.set_ylabel("server memory, MiB")
    for kind, marker in (("read", "."), ("write", "x")):
        some = [r for r in rows
                if r["kind"] == kind and r["tokens_per_second"] > 0]
        speed.plot([r["position"] / 1000 for r in some],
                   [1000 / r["tokens_per_second"] for r in some], marker,
                   markersize=4, label=kind)
    speed.set_ylabel("ms a token")
    speed.set_xlabel("text position, thousand tokens")
    speed.legend()
    for axes in (memory, speed):
        axes.set_ylim(0, 1.2 * axes.dataLim.ymax)
        axes.axvline(8.192, color="grey", linestyle=":")
        axes.grid(alpha=0.3)
    memory.annotate("trained context", (8.192, 0), (12, 8),
                    textcoords="offset points", color="grey")
    memory.set_title("One session: 4 sinks + a window of 1,020 tokens")
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--read", type=int, default=200_000)
    parser.add_argument("--write", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent)
    options = parser.parse_args()
    with millraced.running() as server:
        rows, ratios = asyncio.run(measure(server, options))
    summary = summarise(rows, ratios)
    for name, value in summary.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float)
              else f"{name:24} {value}")
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "endless.json", "w", encoding="utf-8") as file:
        json.dump({"summary": summary, "rows": rows}, file, indent=1)
        file.write("\n")
    draw(rows, options.out / "endless.svg")


if __name__ == "__main__":
    main()
