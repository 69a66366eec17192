"""What is measured, by the names that the gates have.

A cache of C tokens shows C tokens to the newest one, itself included: 4 sinks
and a window of C - 5, or a plain window of C - 1. Nothing is scored before
position 2 C, so that every policy has evicted, unless it says so.
"""

import dataclasses

from ratios import mean_and_error, ratio, ratio_of_ratios
from recall import recall_rows

ALL = ("recomputation", "against_full", "windows", "sink_counts",
       "line_breaks", "text_distances", "beyond", "first_eviction", "recall",
       "eight_bits")
TRAINED_CONTEXT = 8192
LINE_BREAK = 198  # the token of "\n"


@dataclasses.dataclass
class Row:
    """A figure of one gate at one size of the cache."""

    gate: str
    cache_tokens: int
    what: str
    value: float
    two_sigma: float


@dataclasses.dataclass
class Extent:
    """How much text is read.

    Attributes:
      tokens: under sinks; Q1 and Q8 compare its beginning and its end.
      side_tokens: under everything else; beyond the trained context for Q7.
      recomputed_rows: rows of re-computation that each end may cost.
      starts: texts of Q9.
      strings: random strings of Q10 at each distance.
    """

    tokens: int = 16384
    side_tokens: int = 16384
    recomputed_rows: int = 3 * 2**13
    starts: int = 2
    strings: int = 3

    def recomputed_tokens(self, size):
        """Scored tokens that cost so many rows, rebuilt every 64."""
        return max(1024, min(8192, 64 * self.recomputed_rows // size))


def sinks(size, count=4):
    return f"sinks:sink_tokens={count},window_tokens={size - count - 1}"


def window(size):
    return f"window:window_tokens={size - 1}"


def full(tokens):
    return f"full:max_tokens={tokens},allow_beyond_trained_context=true"


def recomputed(size, every):
    return f"reprefill:window_tokens={size - 1},rebuild_every={every}"


class Measures:
    """All figures of one size.

    Args:
      scorer: of a server that stores keys and values as f16.
      int8: a scorer of one that stores them as int8, or None.
      sink_count: 4; another number shows that gates can fail.
    """

    def __init__(self, scorer, int8, ids, extent, size, sink_count=4):
        self.scorer, self.int8 = scorer, int8
        self.ids, self.extent, self.size = ids, extent, size
        self.policy = sinks(size, sink_count)
        self.begin = 2 * size
        # What all but sinks read.
        self.side = ids[:extent.side_tokens]
        self.trained = ids[:min(TRAINED_CONTEXT, extent.side_tokens)]

    async def rows(self, names=ALL):
        out = []
        for name in names:
            async for gate, what, value, error in getattr(self, name)():
                out.append(Row(gate, self.size, what, value, error))
        return out

    async def streamed(self, tokens=None):
        nlls = await self.scorer.nlls(self.policy, self.ids)
        return nlls[:tokens]

    async def recomputation(self):
        """Q1 and Q8, at both ends of the text."""
        tokens = self.extent.recomputed_tokens(self.size)
        ends = [await self._paired(begin, tokens)
                for begin in (self.begin, len(self.ids) - tokens)]
        sampled = [sum((end[side][::64] for end in ends), [])
                   for side in (0, 1)]
        both = [sum((end[side] for end in ends), []) for side in (0, 1)]
        yield "Q1", "sinks / recomputed for each token", *ratio(*sampled)
        yield "Q1", "sinks / recomputed every 64 tokens", *ratio(*both)
        yield ("Q8", "that, end of the text / beginning",
               *ratio_of_ratios(ends[1], ends[0]))

    async def _paired(self, begin, tokens):
        """Of so many tokens: under sinks, and recomputed every 64.

        Re-computation sees nothing but its window, so it starts there; the
        first token and every 64th from it see the whole of it, as if it had
        been recomputed for them alone.
        """
        before = self.size - 1
        part = self.ids[begin - before:begin + tokens]
        anew = await self.scorer.nlls(recomputed(self.size, 64), part)
        streamed = await self.streamed()
        return streamed[begin:begin + tokens], anew[before:]

    async def against_full(self):
        dense = await self._full()
        streamed = await self.streamed(len(self.trained))
        yield ("Q2", "sinks / full, within the trained context",
               *ratio(streamed[self.begin:],
                      dense[self.begin:len(self.trained)]))

    async def beyond(self):
        if len(self.side) <= TRAINED_CONTEXT:
            return
        dense = await self._full()
        streamed = await self.streamed(len(self.side))
        yield ("Q7", "full / sinks, beyond it",
               *ratio(dense[TRAINED_CONTEXT:], streamed[TRAINED_CONTEXT:]))

    async def _full(self):
        return await self.scorer.nlls(full(len(self.side)), self.side)

    async def windows(self):
        plain = await self.scorer.nlls(window(self.size), self.side)
        streamed = await self.streamed(len(self.side))
        yield ("Q3", "window / sinks",
               *ratio(plain[self.begin:], streamed[self.begin:]))

    async def sink_counts(self):
        streamed = await self.streamed(len(self.trained))
        for count in (1, 2, 8):
            other = await self.scorer.nlls(sinks(self.size, count),
                                           self.trained)
            yield ("Q4", f"{count} sinks / 4" if count > 1 else "1 sink / 4",
                   *ratio(other[self.begin:], streamed[self.begin:]))

    async def line_breaks(self):
        """The same text after four line breaks, which are the sinks then."""
        streamed = await self.streamed(len(self.trained))
        broken = await self.scorer.nlls(
            self.policy, [LINE_BREAK] * 4 + self.trained)
        yield ("Q5", "line breaks as sinks / sinks",
               *ratio(broken[4 + self.begin:], streamed[self.begin:]))

    async def text_distances(self):
        """Q6: the same tokens in view, sinks as far away as in the text.

        `tova` that may drop nothing but the oldest of the window is that; it
        ends at the trained context. Slow: a token at a time.
        """
        if len(self.side) <= TRAINED_CONTEXT:
            return
        budget = self.size - 1
        policy = (f"tova:budget_tokens={budget},evict_stride=1,sink_tokens=4,"
                  f"recent_tokens={budget - 4},positions=text")
        if not await self.scorer.takes(policy):
            return
        far = await self.scorer.nlls(policy, self.trained)
        streamed = await self.streamed(len(self.trained))
        yield ("Q6", "sinks at distances of the text / sinks",
               *ratio(far[self.begin:], streamed[self.begin:]))

    async def first_eviction(self, tokens=200, every=25):
        """The tokens after the first eviction, in texts of several starts."""
        differences = []
        length = self.size + tokens
        for start in range(self.extent.starts):
            start *= (len(self.ids) - length) // self.extent.starts
            part = self.ids[start:start + length]
            streamed = await self.scorer.nlls(self.policy, part)
            anew = await self.scorer.nlls(recomputed(self.size, every), part)
            differences += [a - b for a, b in zip(streamed[self.size:],
                                                  anew[self.size:])]
        yield ("Q9", "sinks - recomputed after the first eviction, nats",
               *mean_and_error(differences))

    async def recall(self):
        async for row in recall_rows(self.scorer, self.policy, self.ids,
                                     self.size, self.extent.strings):
            yield row

    async def eight_bits(self):
        if self.int8 is None:
            return
        streamed = await self.streamed(len(self.trained))
        small = await self.int8.nlls(self.policy, self.trained)
        yield ("Q11", "int8 / f16 keys and values",
               *ratio(small[self.begin:], streamed[self.begin:]))
