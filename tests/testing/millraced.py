"""A real server, for tests of what its clients see."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile

import pytest

READY_SECONDS = 60


class Server:
    """A running millraced on loopback ports that it chose itself."""

    def __init__(self, process, ready, log):
        self.process = process
        self.pid = process.pid
        self.address = f"127.0.0.1:{ready['port']}"
        self.health = f"127.0.0.1:{ready['health_port']}"
        self.metrics = f"127.0.0.1:{ready['metrics_port']}"
        self.admin = f"127.0.0.1:{ready['admin_port']}"
        self._log = log

    def log(self):
        """What it has logged so far."""
        with open(self._log.name, encoding="utf-8") as file:
            return file.read()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout=30):
        """The exit code."""
        return self.process.wait(timeout)

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def program():
    """The path of the built server; skips where there is none."""
    path = os.environ.get("MILLRACED", "")
    if not os.access(path, os.X_OK):
        pytest.skip("MILLRACED names no built server")
    return path


def model():
    """The path of the default model; skips where it is not there."""
    path = os.environ.get("MILLRACE_MODEL", "")
    if not os.path.isfile(path):
        pytest.skip("MILLRACE_MODEL names no model file")
    return path


@contextlib.contextmanager
def running(*flags, model_path=None):
    """Runs a server until the end of the block."""
    command = [program(), f"--model={model_path or model()}",
               "--listen=127.0.0.1:0", *flags]
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log,
                                   stdin=subprocess.DEVNULL, text=True)
        try:
            line = process.stdout.readline()
            if not line:
                with open(log.name, encoding="utf-8") as file:
                    raise RuntimeError(f"millraced ended: {file.read()}")
            server = Server(process, json.loads(line), log)
            yield server
            if (process.poll() or 0) < 0:
                raise AssertionError(
                    f"millraced ended by signal {-process.returncode}: "
                    f"{server.log()[-2000:]}")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
