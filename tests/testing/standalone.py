"""Lets a script import what pytest makes ready for tests: import this first.

The client's package with its stubs, and the modules of this folder.
"""

import atexit
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]
import conftest  # noqa: E402  makes the package

atexit.register(conftest.pytest_unconfigure)
