"""A program on a terminal of its own, for tests of what people see."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

WAIT_SECONDS = 60


class Terminal:
    """Runs a command on a pseudo-terminal of 30 rows and 100 columns."""

    def __init__(self, command, environment=None):
        self._command = command
        self._environment = {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8",
                             **(environment or {})}
        self.output = ""
        self._seen = 0

    def __enter__(self):
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execvpe(self._command[0], self._command, self._environment)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 30, 100, 0, 0))
        self._status = None
        return self

    def __exit__(self, *_):
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def type(self, text):
        os.write(self._fd, text.encode())

    def wait_for(self, text):
        """Reads on until `text` appears after what was waited for before."""
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.output[self._seen:]:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(
                    f"{text!r} did not appear; the terminal has "
                    f"{self.output[self._seen:]!r}")
        self._seen = self.output.index(text, self._seen) + len(text)

    def exit_code(self):
        """Reads to the end of the program."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
            ended, status = os.waitpid(self._pid, os.WNOHANG)
        assert ended, f"the program goes on; the terminal has {self.output!r}"
        self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def _read(self, seconds):
        if seconds <= 0 or not select.select([self._fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the program has closed the terminal
            return False
        self.output += data.decode(errors="replace")
        return bool(data)
