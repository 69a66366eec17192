"""What each cache policy costs in perplexity, on the default model and a novel.

    tests/benchmarks/run quality [--sizes=256,1024] [--keep=DIR]
    tests/benchmarks/run quality --policy=tova:budget_tokens={N} ...
    tests/benchmarks/run quality --check

The figures are those of measures.py, their gates those of gates.py. Writes
quality.json beside this file and the table of cache/policies/README.md; figures
that are not measured stay as they were. Ends with 1 if a gate does not hold.
With --policy it measures these policies against sinks at an equal number N of
tokens instead, without gates. --check measures nothing: it ends with 1 if the
table is not that of quality.json.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import subprocess
import sys

if __name__ == "__main__":
    import standalone  # noqa: F401  first: the others need what it makes

import grpc
import millraced

import report
from gates import holds
from measures import ALL, TRAINED_CONTEXT, Extent, Measures, sinks
from ratios import perplexity, ratio
from scorer import Scorer, say

CONTENTS = 4096  # tokens of the table of contents, left out
MEMORY = ("--session_kv_memory=2GiB", "--kv_memory=4GiB")


def stores_int8():
    """Whether the server can store keys and values in 8 bits."""
    done = subprocess.run(
        [os.environ["MILLRACED"], f"--model={os.environ['MILLRACE_MODEL']}",
         "--kv_dtype=int8", "--check_config", "--listen=127.0.0.1:0"],
        capture_output=True, check=False)
    return done.returncode == 0


@contextlib.asynccontextmanager
async def scoring(keep=None, dtype="f16"):
    """A Scorer of a server of its own."""
    with millraced.running(f"--kv_dtype={dtype}", *MEMORY) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield Scorer(channel, keep, dtype)


async def measure(sizes, extent, sink_count=4, keep=None, int8=False,
                  only=ALL):
    """Rows of all figures at these sizes, or of some of measures.ALL."""
    rows = []
    async with contextlib.AsyncExitStack() as stack:
        scorer = await stack.enter_async_context(scoring(keep))
        small = (await stack.enter_async_context(scoring(keep, "int8"))
                 if int8 else None)
        ids = await scorer.novel(CONTENTS, extent.tokens)
        for size in sizes:
            rows += await Measures(scorer, small, ids, extent, size,
                                   sink_count).rows(only)
    say("")
    return rows


async def measure_budgets(sizes, templates, keep=None):
    """Perplexity of policies that hold N tokens, and over that of sinks."""
    found = []
    async with scoring(keep) as scorer:
        ids = await scorer.novel(CONTENTS, TRAINED_CONTEXT)
        for size in sizes:
            streamed = await scorer.nlls(sinks(size), ids)
            for template in templates:
                policy = template.replace("{N}", str(size))
                nlls = await scorer.nlls(policy, ids)
                value, error = ratio(nlls[2 * size:], streamed[2 * size:])
                found.append({"policy": template.replace("{N}", "N"),
                              "cache_tokens": size,
                              "perplexity": perplexity(nlls[2 * size:]),
                              "ratio": value, "two_sigma": error})
    say("")
    return found


def parse_flags():
    parser = argparse.ArgumentParser(
        description="perplexity under each cache policy")
    parser.add_argument("--sizes", default=[256, 512, 1024, 2048],
                        type=lambda s: [int(n) for n in s.split(",")])
    parser.add_argument("--tokens", type=int, default=Extent.tokens,
                        help="of the text, after its table of contents")
    parser.add_argument("--policy", action="append", default=[],
                        help="text form, {N} for the size; may be repeated")
    parser.add_argument("--sink_tokens", type=int, default=4,
                        help="another number shows that gates can fail; "
                        "nothing is written then")
    parser.add_argument("--keep", type=pathlib.Path,
                        help="a folder for answers, to go on from")
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


def main():
    flags = parse_flags()
    path = pathlib.Path(__file__).parent / "quality.json"
    if flags.check:
        sys.exit(0 if report.is_in_readme(path) else
                 f"{report.README} has another table than {path}")
    rows, budgets = [], []
    if flags.policy:
        budgets = asyncio.run(measure_budgets(flags.sizes, flags.policy,
                                              flags.keep))
        print("\n".join(report.budget_table(budgets)))
    else:
        rows = asyncio.run(measure(flags.sizes, Extent(tokens=flags.tokens),
                                   flags.sink_tokens, flags.keep,
                                   stores_int8()))
        print("\n".join(report.gate_table(rows)))
    if flags.sink_tokens == 4:
        report.save(path, rows, budgets)
        report.write_readme(path)
    sys.exit(not all(holds(row) for row in rows))


if __name__ == "__main__":
    main()
