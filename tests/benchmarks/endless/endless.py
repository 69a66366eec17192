"""One session reads 1,000,000 tokens and writes 20,000: does anything change?

    tests/benchmarks/run endless [--tokens=N] [--write=N] [--rounds=N]
                                 [--parts=session,perplexity]

All under sinks:sink_tokens=4,window_tokens=1020. The text is a novel of 766,940
tokens, and begins anew after its end.

Memory: the server's resident set while one session reads and then writes.
Time: at the end, between that session and a fresh one whose window has just been
filled. They write 100 tokens in turns, and the paired ratio of their decode times
is taken, so that whatever else the machine does hits both alike.
Perplexity: ageing.py.

Prints what was measured, with its limit, and ends with 1 if one is exceeded.
Writes endless.json and endless.svg beside this file; a part that is not run
stays as it was.
"""

import argparse
import asyncio
import json
import pathlib
import platform
import statistics
import sys
import time

import standalone  # noqa: F401  first: the others need what it makes
import ageing
import grpc
import millrace
import millraced
from plot import draw
from scorer import PIECE_TOKENS, Scorer, say

STEPS = 100  # tokens of one round
SAMPLES = 250  # of memory and speed while it reads
LIMITS = {"resident_drift": 0.01, "aged_over_fresh_median": 1.05,
          "perplexity_last_over_first": 1.03}


async def text_ids(server, tokens):
    """So many tokens of the novel, which begins anew after its end."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        ids = await Scorer(channel).novel(0, tokens)
    return (ids * (tokens // len(ids) + 1))[:tokens]


def connect(server):
    policy = {"sink_tokens": ageing.SINKS, "window_tokens": ageing.WINDOW}
    return millrace.connect(server.address, format="FORMAT_PLAIN",
                            cache_policy={"sinks": policy},
                            sampling={"seed": 1})


class Samples:
    """Memory and speed by text position."""

    def __init__(self, server, apart):
        self.server = server
        self.rows = []
        self.apart = apart
        self._start = time.monotonic()
        self._position = 0

    def take(self, kind, position):
        """Takes one if the last is far enough away."""
        if position - self._position < self.apart:
            return
        now = time.monotonic()
        row = {"kind": kind, "position": position,
               "resident_bytes": self.server.resident_bytes(),
               "tokens_per_second":
                   (position - self._position) / (now - self._start)}
        self.rows.append(row)
        self._start, self._position = now, position
        say(f"{kind:5}  position {position:9,}  "
            f"resident {row['resident_bytes'] / 2**20:7.1f} MiB  "
            f"{row['tokens_per_second']:6.0f} tokens/s")


async def read(session, ids, samples=None):
    """Appends, and waits until all is read."""
    for start in range(0, len(ids), PIECE_TOKENS):
        accepted = asyncio.ensure_future(_accepted(session))
        await asyncio.sleep(0)
        await session.append(token_ids=ids[start:start + PIECE_TOKENS])
        await accepted
        if samples:
            samples.take("read", session.text_position)


async def _accepted(session):
    async for event in session.events():
        if event.kind == "input_accepted":
            return


async def write(session, tokens):
    """Writes; returns the seconds from first to last token."""
    stopping = {"max_tokens": tokens, "ignore_end_of_turn": True,
                "repetition_guard": 0}
    async for event in session.generate(stopping=stopping):
        pass
    return event.message.usage.decode.ToTimedelta().total_seconds()


async def live(server, options):
    """Rows of memory and speed, and ratios of time, of one long session."""
    ids = await text_ids(server, options.tokens)
    samples = Samples(server, options.tokens // SAMPLES)
    ratios = []
    async with connect(server) as aged:
        await read(aged, ids, samples)
        samples.apart = options.write // 40
        for _ in range(40):
            await write(aged, options.write // 40)
            samples.take("write", aged.text_position)
        async with connect(server) as fresh:
            await read(fresh, ids[:2 * ageing.READ_BEFORE])
            await write(fresh, STEPS)
            for _ in range(options.rounds):
                old = await write(aged, STEPS)
                ratios.append(old / await write(fresh, STEPS))
    return samples.rows, ratios


def summarise(rows, ratios):
    full = [r["resident_bytes"] for r in rows
            if r["position"] > 2 * ageing.READ_BEFORE]
    ratios = sorted(ratios)
    return {
        "machine": platform.processor() or platform.machine(),
        "tokens": rows[-1]["position"],
        "resident_first_mib": full[0] / 2**20,
        "resident_last_mib": full[-1] / 2**20,
        "resident_drift": (max(full) - full[0]) / full[0],
        "aged_over_fresh_median": statistics.median(ratios),
        "aged_over_fresh_p10": ratios[len(ratios) // 10],
        "aged_over_fresh_p90": ratios[len(ratios) * 9 // 10],
        "rounds": len(ratios),
    }


async def score(server, options):
    """What every 16,384th token and those after it cost, aged and anew."""
    ids = await text_ids(server, options.tokens)
    async with grpc.aio.insecure_channel(server.address) as channel:
        scorer = Scorer(channel, options.keep)
        return await ageing.aged_and_computed_anew(scorer, ids)


def run(options, result):
    """Puts the parts asked for into the result."""
    if "session" in options.parts:
        with millraced.running("--speculation=none") as server:
            rows, ratios = asyncio.run(live(server, options))
        result.update(session=summarise(rows, ratios), rows=rows)
    if "perplexity" in options.parts:
        with millraced.running("--speculation=none") as server:
            points = asyncio.run(score(server, options))
        result.update(perplexity=ageing.summarise(points),
                      points=ageing.by_position(points))
    say("")


def report(result):
    """Prints the figures; whether all are within their limits."""
    good = True
    for part in ("session", "perplexity"):
        for name, value in result.get(part, {}).items():
            limit = LIMITS.get(name)
            good = good and (limit is None or value <= limit)
            shown = f"{value:.4f}" if isinstance(value, float) else value
            print(f"{name:28} {shown}" +
                  (f"  at most {limit}" if limit else ""))
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--write", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--parts", default="session,perplexity")
    parser.add_argument("--keep", type=pathlib.Path,
                        help="a folder for log-likelihoods, to go on from")
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent)
    options = parser.parse_args()
    path = options.out / "endless.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    run(options, result)
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out / "endless.svg")
    sys.exit(not report(result))


if __name__ == "__main__":
    main()
