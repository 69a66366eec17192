"""What all Python tests share: the stubs, and servers of their own."""

import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _make_package():
    """Builds the Python client with its stubs in a folder of its own."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="millrace-python-"))
    shutil.copytree(ROOT / "clients/python/millrace", folder / "millrace",
                    ignore=shutil.ignore_patterns("__pycache__"))
    sys.path[:0] = [str(folder), str(ROOT / "clients/python"),
                    str(ROOT / "tests/testing")]
    import generate_stubs
    generate_stubs.generate(folder)
    return folder


_PACKAGE = _make_package()


def pytest_unconfigure():
    shutil.rmtree(_PACKAGE, ignore_errors=True)


@pytest.fixture(scope="module")
def server():
    """A server with default options; shared by the tests of one module."""
    import millraced
    with millraced.running() as process:
        yield process


@pytest.fixture
def start_server():
    """Starts servers with flags of their own: `start_server("--threads=1")`."""
    import contextlib

    import millraced
    with contextlib.ExitStack() as stack:
        yield lambda *flags: stack.enter_context(millraced.running(*flags))
