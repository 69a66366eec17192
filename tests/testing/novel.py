"""The novel that tests and benchmarks read."""

import lzma
import pathlib

PATH = (pathlib.Path(__file__).resolve().parents[1] /
        "testdata/war_and_peace.txt.xz")


def text(characters=-1):
    """Its first characters; all of it by default."""
    with lzma.open(PATH, "rt", encoding="utf-8") as file:
        return file.read(characters)
