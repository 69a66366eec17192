"""The gates of quality: a cache of 256 and a short text; all with --full."""

import asyncio
import os
import pathlib

import pytest

import quality
import report
from gates import GATES, gate_text, holds
from measures import Extent, Row
from scorer import parse_policy

RECORDED = pathlib.Path(__file__).parent / "quality.json"
SAMPLE = Extent(tokens=4096, side_tokens=4096, recomputed_rows=2**11, starts=1,
                strings=1)
FULL = os.environ.get("MILLRACE_FULL") == "1"
SIZES, EXTENT = ([256, 512, 1024, 2048], Extent()) if FULL else ([256], SAMPLE)
NAMES = sorted({gate for gate, _ in GATES} - (set() if FULL else {"Q7"}))


@pytest.fixture(scope="module")
def rows():
    return asyncio.run(quality.measure(SIZES, EXTENT,
                                       int8=quality.stores_int8()))


def told(row):
    return (f"{row.gate} at {row.cache_tokens}: {row.what} {row.value:.3f} ± "
            f"{row.two_sigma:.3f}, must be {gate_text(row)}")


@pytest.mark.parametrize("gate", NAMES)
def test_the_gate_holds(rows, gate):
    mine = [row for row in rows if row.gate == gate]
    if not mine and gate == "Q11":
        pytest.skip("this server stores no int8 keys and values")
    assert mine
    assert not [told(row) for row in mine if not holds(row)]


def test_without_sinks_the_gates_do_not_hold():
    """Else they would not notice if sinks were evicted."""
    bare = asyncio.run(quality.measure(
        [256], SAMPLE, sink_count=0,
        only=["recomputation", "against_full", "windows"]))
    failed = {row.gate for row in bare if not holds(row)}
    assert {"Q1", "Q2", "Q3"} <= failed


def test_a_gate_judges_a_figure_that_is_certain_enough():
    what = "sinks / full, within the trained context"
    assert holds(Row("Q2", 1024, what, 1.09, 0.02))
    assert not holds(Row("Q2", 1024, what, 1.11, 0.02))
    assert holds(Row("Q2", 1024, what, 1.11, 0.2))


def test_every_gate_has_a_recorded_figure_at_every_size():
    recorded, _ = report.load(RECORDED)
    found = {(row.gate, row.what, row.cache_tokens) for row in recorded}
    missing = {(*gate, size) for gate in GATES if gate[0] != "Q11"
               for size in (256, 512, 1024, 2048)} - found
    assert not missing
    assert not [told(row) for row in recorded if not holds(row)]


def test_the_table_for_readers_is_what_was_recorded():
    assert report.is_in_readme(RECORDED)


@pytest.mark.parametrize("text", ["sinks", "full:on_full=stop",
                                  "sinks:sink_tokens=4,window_tokens=8",
                                  "shift:pin_system_prompt=false",
                                  "h2o:scope=layer,positions=text,decay=1"])
def test_policies_have_their_text_form(text):
    name, _, options = text.partition(":")
    policy = parse_policy(text)
    assert policy.WhichOneof("policy") == name
    set_options = [f.name for f, _ in getattr(policy, name).ListFields()]
    assert sorted(set_options) == sorted(
        pair.split("=")[0] for pair in options.split(",") if pair)
