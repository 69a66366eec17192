"""The server's Prometheus metrics."""

import re
import urllib.request

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def text(server):
    """What /metrics says."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics",
                                timeout=10) as response:
        return response.read().decode()


def samples(server):
    """(name, labels as dict, value) of every sample."""
    out = []
    for line in text(server).splitlines():
        if match := _SAMPLE.match(line):
            name, labels, value = match.groups()
            out.append((name, dict(_LABEL.findall(labels or "")),
                        float(value)))
    return out


def total(server, name, **labels):
    """The sum of all samples of a name that have these labels."""
    return sum(value for n, have, value in samples(server)
               if n == name and labels.items() <= have.items())
