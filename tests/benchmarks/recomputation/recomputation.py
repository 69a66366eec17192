"""What a token costs that sees sinks and a window, and one whose window is
computed anew: figure 10 of the StreamingLLM paper, on this engine.

    tests/benchmarks/run recomputation [--sizes=256,512] [--rounds=N]

At each size of the cache four sessions read the same text to half a cache beyond
it, then write in turns:

    sinks        4 sinks and a window
    every R/2    reprefill, rebuilt when half of the window is new
    every 1      reprefill, rebuilt for each token: the paper's baseline
    full         everything there is, at the same text position

A round gives each its time per token, between the first token of a turn and the
last; the turn of "every R/2" covers one whole stretch from rebuild to rebuild.
Prints a table, and writes recomputation.json and recomputation.svg beside this
file.
"""

import argparse
import asyncio
import json
import pathlib
import statistics

import standalone  # noqa: F401  first: the others need what it makes
import millrace
import millraced
import novel
from scorer import say

SINKS, HALF, EVERY, FULL = "sinks", "every R/2", "every 1", "full"
TRAINED_CONTEXT = 8192


def policies(size):
    """What sees `size` tokens at most, the newest included."""
    window = size - 1
    return {
        SINKS: {"sinks": {"sink_tokens": 4, "window_tokens": window - 4}},
        HALF: {"reprefill": {"window_tokens": window,
                             "rebuild_every": window // 2}},
        EVERY: {"reprefill": {"window_tokens": window, "rebuild_every": 1}},
        FULL: {"full": {"max_tokens": TRAINED_CONTEXT}},
    }


def steps(name, size):
    """Tokens of one turn, less the first."""
    return {SINKS: 64, FULL: 64, HALF: (size - 1) // 2,
            EVERY: max(2, 2048 // size)}[name]


async def write(session, tokens):
    """Milliseconds a token, and the most MiB of keys and values held."""
    stopping = {"max_tokens": tokens + 1, "ignore_end_of_turn": True,
                "repetition_guard": 0}
    async for event in session.generate(stopping=stopping):
        pass
    usage = event.message.usage
    seconds = usage.decode.ToTimedelta().total_seconds()
    held = usage.peak_resident_tokens * session.opened.model.kv_bytes_per_token
    return 1000 * seconds / tokens, held / 2**20


async def turn(server, name, size, text):
    """One turn of a new session that has read the text."""
    say(f"cache {size}, {name}")
    async with millrace.connect(server.address, format="FORMAT_PLAIN",
                                cache_policy=policies(size)[name],
                                sampling={"seed": 1}) as session:
        await session.append(text)
        await write(session, 1)
        return await write(session, steps(name, size))


async def measure(server, size, text, rounds):
    """Per policy, a list of (milliseconds, MiB held)."""
    results = {name: [] for name in policies(size)}
    # In turns, so that whatever else the machine does hits all alike.
    for _ in range(rounds):
        for name in results:
            results[name].append(await turn(server, name, size, text))
    return results


def summarise(size, results):
    row = {"cache_tokens": size}
    for name, rounds in results.items():
        row[name] = {
            "ms_per_token": statistics.median(ms for ms, _ in rounds),
            "ratio_to_sinks": statistics.median(
                ms / sinks for (ms, _), (sinks, _) in
                zip(rounds, results[SINKS])),
            "kv_mib": max(held for _, held in rounds),
        }
    return row


def table(rows):
    names = (SINKS, HALF, EVERY, FULL)
    yield "| cache | " + " | ".join(
        f"{n}, ms a token" for n in names) + " | every 1 / sinks |"
    yield "|---" * (len(names) + 2) + "|"
    for row in rows:
        cells = [f"{row[n]['ms_per_token']:.1f}" for n in names]
        yield (f"| {row['cache_tokens']} | " + " | ".join(cells) +
               f" | {row[EVERY]['ratio_to_sinks']:.0f} |")


def draw(rows, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    from matplotlib import pyplot

    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(9, 3.8),
                                             layout="constrained")
    sizes = [row["cache_tokens"] for row in rows]
    for name, marker in ((EVERY, "v"), (HALF, "^"), (FULL, "s"), (SINKS, "o")):
        time.plot(sizes, [row[name]["ms_per_token"] for row in rows],
                  marker=marker, label=name)
        memory.plot(sizes, [row[name]["kv_mib"] for row in rows],
                    marker=marker, label=name)
    time.set_ylabel("ms a token")
    time.set_yscale("log")
    memory.set_ylabel("keys and values, MiB")
    for axes in (time, memory):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xlabel("tokens in the cache")
        axes.grid(alpha=0.3)
    time.legend()
    figure.suptitle("Attention sinks against a window that is computed anew")
    figure.savefig(path, metadata={"Date": None})


async def run(options):
    rows = []
    with millraced.running("--speculation=none") as server:
        for size in options.sizes:
            results = await measure(server, size,
                                    novel.text(6 * size),
                                    options.rounds)
            rows.append(summarise(size, results))
    say("")
    return rows


def main():
    parser = argparse.ArgumentParser(
        description="time per token of sinks and of recomputation")
    parser.add_argument("--sizes", default=[256, 512, 1024, 2048, 4096],
                        type=lambda s: [int(n) for n in s.split(",")])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent)
    options = parser.parse_args()
    rows = asyncio.run(run(options))
    print("\n".join(table(rows)))
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "recomputation.json", "w",
              encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")
    draw(rows, options.out / "recomputation.svg")


if __name__ == "__main__":
    main()
