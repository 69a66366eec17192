"""Runs the built `millrace`, for tests of what it prints."""

import os
import subprocess

import pytest


def cli():
    path = os.environ.get("MILLRACE_CLI", "")
    if not os.access(path, os.X_OK):
        pytest.skip("MILLRACE_CLI names no built client")
    return path


def run(server, *arguments, stdin="", **environment):
    command = [cli()]
    if server is not None:
        command.append(f"--server={server.address}")
    return subprocess.run(command + list(arguments), input=stdin,
                          capture_output=True, text=True, timeout=120,
                          env={**os.environ, **environment})
