"""`millrace compare` against the real server."""

import csv
import json
import lzma
import math
import pathlib
import re
import shutil
import xml.etree.ElementTree

import pytest
import terminal
from client import cli, run

ROOT = pathlib.Path(__file__).resolve().parents[3]
POLICIES = ["full:max_tokens=400", "window:window_tokens=127",
            "sinks:sink_tokens=4,window_tokens=123"]
ASKED = [f"--policies={policy}" for policy in POLICIES]
TOKENS = 700


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """Some pages of a novel, about 1,300 tokens."""
    novel = lzma.open(ROOT / "tests/testdata/war_and_peace.txt.xz", "rt",
                      encoding="utf-8").read()
    path = tmp_path_factory.mktemp("compare") / "prose.txt"
    path.write_text(" ".join(novel.split()[2000:2900]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def compared(server, prose, tmp_path_factory):
    """What it prints of 700 tokens under three policies, and its CSV file."""
    table = tmp_path_factory.mktemp("compare") / "table.csv"
    done = run(server, "compare", f"--file={prose}", "--json", f"--csv={table}",
               f"--max_input_tokens={TOKENS}", *ASKED)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout), table


def test_every_policy_that_was_asked_for_is_compared_in_order(compared):
    figures, _ = compared
    assert figures["tokens"] == TOKENS
    assert [p["policy"] for p in figures["policies"]] == POLICIES
    for policy in figures["policies"]:
        assert policy["perplexity"] == pytest.approx(
            math.exp(policy["mean_nll"]))
        assert policy["tokens_per_second"] > 0


def test_figures_are_those_of_score(server, prose, compared):
    for policy in compared[0]["policies"][1:]:
        done = run(server, "score", f"--file={prose}", "--json",
                   f"--max_input_tokens={TOKENS}",
                   f"--cache_policy={policy['policy']}")
        score = json.loads(done.stdout)
        assert score["mean_nll"] == pytest.approx(policy["mean_nll"])
        for name in ("tokens", "visible_tokens", "peak_resident_tokens",
                     "cache_policy"):
            assert score[name] == policy[name], name


def test_the_whole_text_has_the_tokens_that_score_finds(server, prose):
    compared = json.loads(run(server, "compare", f"--file={prose}", "--json",
                              ASKED[2]).stdout)["policies"][0]
    score = json.loads(run(server, "score", f"--file={prose}", "--json",
                           f"--cache_policy={POLICIES[2]}").stdout)
    assert compared["tokens"] == score["tokens"] > TOKENS
    assert compared["mean_nll"] == pytest.approx(score["mean_nll"])


def test_buckets_add_up_to_the_whole(compared):
    figures, _ = compared
    for policy in figures["policies"]:
        buckets = policy["buckets"]
        assert [b["first_position"] for b in buckets] == list(
            range(0, policy["tokens"], figures["bucket_tokens"]))
        assert buckets[-1]["end_position"] == policy["tokens"]
        total = sum(b["mean_nll"] *
                    (b["end_position"] - max(b["first_position"], 1))
                    for b in buckets)
        assert total / (policy["tokens"] - 1) == pytest.approx(
            policy["mean_nll"], rel=1e-5)


def test_tokens_in_view_stay_where_the_policy_bounds_them(compared):
    figures, _ = compared
    full, window, sinks = figures["policies"]
    for bucket in full["buckets"]:
        assert bucket["visible_tokens"] == bucket["end_position"]
    for policy in (window, sinks):
        seen = [b["visible_tokens"] for b in policy["buckets"]]
        assert max(seen) <= 128
        assert set(seen[3:]) == {128}
        assert policy["visible_tokens"] == 128
    for policy in figures["policies"]:
        assert policy["kv_memory_bytes"] == (
            policy["peak_resident_tokens"] * figures["kv_bytes_per_token"])


def test_full_ends_at_its_limit_and_the_others_go_on(server, prose, compared):
    full, window, sinks = compared[0]["policies"]
    assert full["tokens"] == full["visible_tokens"] == 400
    assert full["ended"]["reason"] == "CACHE_FULL"
    assert "400 tokens" in full["ended"]["message"]
    assert window["ended"] is None and sinks["ended"] is None
    assert window["tokens"] == sinks["tokens"] == TOKENS
    score = json.loads(run(server, "score", f"--file={prose}", "--json",
                           "--max_input_tokens=400").stdout)
    assert full["mean_nll"] == pytest.approx(score["mean_nll"])


def test_what_all_have_read_is_compared_too(compared):
    figures, _ = compared
    assert figures["common_tokens"] == 400
    full, window, sinks = figures["policies"]
    assert full["common_perplexity"] == pytest.approx(full["perplexity"])
    assert full["common_perplexity"] < window["common_perplexity"]
    assert sinks["common_perplexity"] != pytest.approx(sinks["perplexity"])


def test_sinks_are_better_than_a_window_of_the_same_size(compared):
    full, window, sinks = compared[0]["policies"]
    assert sinks["perplexity"] < window["perplexity"]
    assert full["buckets"][1] == window["buckets"][1]  # nothing has left yet


def test_csv_has_a_line_for_each_policy_and_bucket(compared):
    figures, table = compared
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(p["buckets"]) for p in figures["policies"])
    last = figures["policies"][2]["buckets"][-1]
    assert rows[-1]["policy"] == POLICIES[2]
    assert int(rows[-1]["end_position"]) == last["end_position"]
    assert float(rows[-1]["perplexity"]) == pytest.approx(last["perplexity"])
    assert int(rows[-1]["visible_bytes"]) == (
        last["visible_tokens"] * figures["kv_bytes_per_token"])


def test_without_policies_full_window_and_sinks_are_compared(server):
    done = run(server, "compare", stdin="The capital of France is Paris.")
    assert done.returncode == 0, done.stderr
    for policy in ("full ", "window:window_tokens=1023",
                   "sinks:sink_tokens=4,window_tokens=1019"):
        assert policy in done.stdout
    assert "No policy has forgotten anything" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_the_table_says_where_and_why_a_policy_ended(server, prose):
    done = run(server, "compare", f"--file={prose}", "--max_input_tokens=150",
               "--policies=full:max_tokens=100", ASKED[2])
    assert done.returncode == 0, done.stderr
    assert "full:max_tokens=100 ended at 100 tokens, CACHE_FULL" in done.stdout
    last_row = re.search(r"^ *128 \.\. +149 (.*)$", done.stdout, re.MULTILINE)
    assert last_row[1].split()[0] == "-"


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_plot_is_drawn_by_gnuplot(server, prose, tmp_path, kind):
    if shutil.which("gnuplot") is None:
        pytest.skip("gnuplot is not installed")
    plot = tmp_path / f"it's a plot.{kind}"
    done = run(server, "compare", f"--file={prose}", "--max_input_tokens=200",
               f"--plot={plot}", "--policies=full:max_tokens=100", *ASKED[1:])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    drawn = plot.read_bytes()
    if kind == "png":
        assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
        return
    words = " ".join(xml.etree.ElementTree.fromstring(drawn).itertext())
    for text in ("perplexity", "text position (tokens)", "prose.txt",
                 "full:max_tokens=100 (ends at 100: CACHE_FULL)", *POLICIES[1:]):
        assert text in words


def test_without_gnuplot_the_rest_is_printed_and_one_line_says_what_to_install(
        server, tmp_path):
    plot = tmp_path / "plot.svg"
    done = run(server, "compare", ASKED[2], f"--plot={plot}",
               stdin="The capital of France is Paris.", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == ("millrace: no plot: gnuplot is not installed; on "
                           "Debian: apt-get install gnuplot-nox\n")
    assert POLICIES[2] in done.stdout
    assert not plot.exists()


@pytest.mark.parametrize("arguments, code, says", [
    (["--policies=nonsense"], 2, "unknown cache policy 'nonsense'; there are"),
    (["--policies=full", "--policies=sinks:window_tokens=0"], 1,
     "INVALID_CACHE_POLICY"),
    (["--file=/no/such/file"], 2, "cannot read the file"),
    (["--plot=plot.pdf"], 2, "must end with .svg or .png"),
    (["--plot=/no/such/folder/plot.svg"], 2, "cannot write the file"),
    (["--csv=/no/such/folder/table.csv"], 2, "cannot write the file"),
    (["--bucket_tokens=0"], 2, "bucket_tokens"),
    ([], 2, "fewer than 2 tokens"),
])
def test_mistakes_are_one_clear_line_and_no_output(server, arguments, code,
                                                   says):
    done = run(server, "compare", *arguments, stdin="x")
    assert done.returncode == code
    assert says in done.stderr
    assert done.stdout == ""


def test_progress_is_shown_on_a_terminal(server, prose):
    with terminal.Terminal([cli(), f"--server={server.address}", "compare",
                            f"--file={prose}", ASKED[2]]) as t:
        t.wait_for("sinks (1 of 1) [")
        t.wait_for("perplexity at")
        assert t.exit_code() == 0
