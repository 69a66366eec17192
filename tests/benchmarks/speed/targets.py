"""What is measured and what it is held to: the rows of the table.

A figure is better when larger, or smaller where `at_most` is set. `must` is what
the project promises of its CPU backend, `aim` what it works towards.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table; `key` names the series of measured values."""
    key: str
    what: str
    unit: str
    must: float | None = None
    aim: float | None = None
    at_most: bool = False
    digits: int = 2

    def judge(self, value):
        """`aim`, `must`, `missed`, or nothing where there is no target."""
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if bound is not None and (value <= bound if self.at_most
                                      else value >= bound):
                return name
        return "missed" if self.must is not None else ""


def _speed(key, what, peer_must, peer_aim, share_must=None, share_aim=None):
    """Tokens per second; over llama.cpp; share of what memory can deliver."""
    yield Row(key, what, "tokens/s", digits=0)
    yield Row(f"{key}_peer", f"{what}, llama.cpp", "tokens/s", digits=0)
    yield Row(f"{key}_over_peer", f"{what}, over llama.cpp", "times",
              peer_must, peer_aim)
    if share_must is not None:
        yield Row(f"{key}_share", f"{what}, of the read probe", "share",
                  share_must, share_aim)


ROWS = (
    Row("probe", "read probe, 96 MiB, all threads", "GB/s", digits=1),
    *_speed("decode_256", "decode at 256 tokens", 2.5, 3.4, 0.75, 0.88),
    *_speed("decode_2048", "decode at 2,048 tokens", 2.5, 4),
    *_speed("prefill_512", "prefill of 512 tokens", 5, 7),
    *_speed("batch_16", "16 sessions decode at 256", 4, 6),
    *_speed("batch_64", "64 sessions decode at 256", 4.5, 7),
    Row("busy", "decode while another process burns a core, over quiet",
        "share", 0.6, 0.8),
    Row("aged_over_fresh", "a step of an old session over that of a fresh one",
        "times", 1.05, 1.01, at_most=True, digits=3),
    Row("aged_tail_over_fresh", "the same, 99.9th percentiles", "times", 1.2,
        1.1, at_most=True),
    Row("grpc_tax", "one session through gRPC, time lost", "share", 0.08, 0.03,
        at_most=True, digits=3),
    Row("grpc_tax_64", "64 sessions through gRPC, time lost", "share", 0.10,
        0.05, at_most=True, digits=3),
    Row("first_token", "time to first token over prefill and a step, 128 tokens",
        "times", 1.3, 1.1, at_most=True),
    Row("start_up", "start to ready, warm page cache", "s", 1.0, 0.4,
        at_most=True),
    Row("resident_beyond", "resident beyond weights and keys and values", "MB",
        150, 80, at_most=True, digits=0),
)
