"""How much faster a text comes with prompt-lookup speculation than without.

    tests/benchmarks/run speculation [--rounds=N] [--tokens=N]

Texts of five kinds are continued by one session at a time, greedily and with
temperature 0.7 and a seed, in turns with and without, and must be the same.
Prints a table of ratios (median, p10, p90) and writes speculation.json and
speculation.md beside this file, or where --out says.
"""

import argparse
import asyncio
import json
import pathlib
import statistics

import standalone  # noqa: F401  first: the others need what it makes
import millrace
import millraced
from percentiles import percentile
from scorer import say

NONE, NGRAM = "SPECULATION_NONE", "SPECULATION_NGRAM"
WAYS = {"greedy": {"temperature": 0}, "sampled": {"temperature": 0.7,
                                                  "seed": 5}}
CODE = """Write the following Python file again, with every function unchanged.

import sys

def read_lines(path):
    with open(path) as file:
        return [line.rstrip() for line in file]

def count_words(lines):
    counts = {}
    for line in lines:
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    return counts

def print_counts(counts):
    for word, count in sorted(counts.items()):
        print(word, count)

if __name__ == "__main__":
    print_counts(count_words(read_lines(sys.argv[1])))
"""
QUOTATION = (  # A Tale of Two Cities
    "Repeat this text word for word, then repeat it again: \"It was the best "
    "of times, it was the worst of times, it was the age of wisdom, it was the "
    "age of foolishness, it was the epoch of belief, it was the epoch of "
    "incredulity, it was the season of Light, it was the season of Darkness, "
    "it was the spring of hope, it was the winter of despair.\"")
TEXTS = {
    "code": CODE,
    "quotation": QUOTATION,
    "list": "List the numbers from one to fifty, one line each, as \"Number N "
            "is N.\"",
    "prose": "Tell me a long story about a lighthouse keeper who finds a "
             "letter in a bottle.",
    "answer": "Explain how photosynthesis works and why it matters for life on "
              "Earth.",
}


async def write(server, text, sampling, tokens):
    """(token ids, tokens per second, drafted, accepted) of one turn."""
    async with millrace.connect(server.address, sampling=sampling) as session:
        ids = []
        async for event in session.chat(text, stopping={"max_tokens": tokens}):
            if event.kind == "output":
                ids.extend(event.message.token_ids)
        usage = event.message.usage
    seconds = usage.decode.ToTimedelta().total_seconds()
    return (ids, (len(ids) - 1) / seconds, usage.drafted_tokens,
            usage.accepted_tokens)


async def compare(server, kind, way, options):
    """One row: ratios by round, and what became of guesses."""
    ratios = []
    for number in range(options.rounds):
        say(f"{kind}, {way}, round {number + 1}")
        done = {}
        for how in (NONE, NGRAM) if number % 2 else (NGRAM, NONE):
            done[how] = await write(server, TEXTS[kind],
                                    {**WAYS[way], "speculation": how},
                                    options.tokens)
        assert done[NONE][0] == done[NGRAM][0], "speculation changed a text"
        ratios.append(done[NGRAM][1] / done[NONE][1])
    ids, _, drafted, accepted = done[NGRAM]
    return {"kind": kind, "way": way, "tokens": len(ids), "drafted": drafted,
            "accepted": accepted, "ratios": ratios}


async def run(options):
    with millraced.running() as server:
        rows = [await compare(server, kind, way, options)
                for kind in TEXTS for way in WAYS]
    say("")
    return rows


def table(rows):
    yield ("| text | way | tokens | guessed | right | with / without | p10 "
           "| p90 |")
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        ratios = row["ratios"]
        yield (f"| {row['kind']} | {row['way']} | {row['tokens']} "
               f"| {row['drafted']} | {row['accepted']} "
               f"| **{statistics.median(ratios):.2f}** "
               f"| {percentile(ratios, 0.1):.2f} "
               f"| {percentile(ratios, 0.9):.2f} |")


def main():
    parser = argparse.ArgumentParser(
        description="speed with and without speculation")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent)
    options = parser.parse_args()
    rows = asyncio.run(run(options))
    lines = list(table(rows))
    print("\n".join(lines))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speculation.json").write_text(
        json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (options.out / "speculation.md").write_text("\n".join(lines) + "\n",
                                                encoding="utf-8")


if __name__ == "__main__":
    main()
