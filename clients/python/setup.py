"""Puts the generated stubs beside the package; the rest is pyproject.toml."""

import pathlib
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from generate_stubs import generate  # noqa: E402


class BuildWithStubs(build_py):
    """Generates the stubs where the package is built."""

    def run(self):
        super().run()
        generate(self.build_lib)


setup(cmdclass={"build_py": BuildWithStubs})
