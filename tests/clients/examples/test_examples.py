"""Every program in clients/examples, run against the real server."""

import lzma
import os
import pathlib
import re
import subprocess
import sys

import millrace
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "clients/examples"


def run(server, name, *arguments):
    package = pathlib.Path(millrace.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, f"--server={server.address}",
         *arguments], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(package),
             "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def chapter(tmp_path):
    """A thousand words of prose."""
    novel = lzma.open(ROOT / "tests/testdata/war_and_peace.txt.xz", "rt",
                      encoding="utf-8").read()
    path = tmp_path / "chapter.txt"
    path.write_text(" ".join(novel.split()[2000:3000]), encoding="utf-8")
    return path


def test_the_dialogue_forgets_old_talk_and_keeps_its_system_prompt(server):
    said = run(server, "dialogue.py")
    assert said.count("> ") == 6
    forgotten = [int(n) for n in re.findall(r"\[(\d+) tokens", said)]
    assert forgotten == sorted(forgotten)
    text, seen, pinned = map(int, re.search(
        r"(\d+) tokens of text; in view are (\d+), the (\d+) of", said).groups())
    assert seen == pinned + 200 + 1
    assert 0 < forgotten[-1] <= text - seen


def test_the_code_completion_completes_code_that_runs(server):
    code = run(server, "code_completion.py")
    names = {}
    exec(code, names)  # pylint: disable=exec-used
    assert names["add"](2, 3) == 5
    stack = names["Stack"]()
    stack.push("a")
    stack.push("b")
    assert stack.pop() == "b"
    assert stack.pop() == "a"


def test_the_feed_answers_what_is_in_the_window_and_says_what_is_not(server):
    answers = run(server, "feed_qa.py").splitlines()
    assert len(answers) == 3
    assert "at noon" in answers[0]
    assert "mayor of Turin" in answers[1]
    assert "[forgotten: told at position 0" in answers[2]


def test_the_summary_has_a_sentence_for_each_part_in_constant_memory(server,
                                                                     chapter):
    said = run(server, "running_summary.py", "--parts=3", str(chapter))
    assert re.findall(r"^(\d)\. \w", said, re.MULTILINE) == ["1", "2", "3"]
    figures = re.findall(r"\[(\d+) tokens of text, (\d+) in view\]", said)
    texts, seen = zip(*[map(int, pair) for pair in figures])
    assert len(set(texts)) == 3 and texts[-1] > 2 * seen[-1]
    assert seen[1] == seen[2]  # the cache is full, and stays so


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_an_example_is_short_and_names_its_policy_first(name):
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert any(line.startswith("Cache policy: `") for line in lines[:4])
