"""Whether keys and values that are old make a text less likely.

Under sinks those of the second layer and above were computed while text was in
view that has left since; they are never repaired. So every 16,384 tokens the text
that is seen there, sinks and window, is computed anew, and the next 256 tokens
are scored twice: in the one long text, and after what was computed anew. Both go
on under the same policy, so the only difference is the age.
"""

from ratios import perplexity, ratio, ratio_of_ratios

SINKS, WINDOW = 4, 1020
POLICY = f"sinks:sink_tokens={SINKS},window_tokens={WINDOW}"
READ_BEFORE = SINKS + WINDOW + 1  # what the token before the 256 sees
EVERY, SCORED = 16384, 256


async def aged_and_computed_anew(scorer, ids):
    """[{position, aged, anew}], each of 256 negative log-likelihoods."""
    aged = await scorer.nlls(POLICY, ids)
    points = []
    for position in range(EVERY, len(ids) - SCORED + 1, EVERY):
        seen = ids[:SINKS] + ids[position - WINDOW - 1:position + SCORED]
        anew = await scorer.nlls(POLICY, seen)
        points.append({"position": position,
                       "aged": aged[position:position + SCORED],
                       "anew": anew[READ_BEFORE:]})
    return points


def joined(points):
    """Aged and anew, of all tokens of these points."""
    return (sum((p["aged"] for p in points), []),
            sum((p["anew"] for p in points), []))


def by_position(points):
    """What is recorded of each point: the ratio of perplexities, its error."""
    found = []
    for point in points:
        value, error = ratio(point["aged"], point["anew"])
        found.append({"position": point["position"],
                      "ratio": round(value, 5), "two_sigma": round(error, 5)})
    return found


def summarise(points):
    tenth = max(1, len(points) // 10)
    first, last = joined(points[:tenth]), joined(points[-tenth:])
    value, error = ratio_of_ratios(last, first)
    whole, whole_error = ratio(*joined(points))
    return {
        "scored_tokens": SCORED * len(points),
        "perplexity_aged": perplexity(joined(points)[0]),
        "perplexity_computed_anew": perplexity(joined(points)[1]),
        "perplexity_ratio": whole,
        "perplexity_ratio_two_sigma": whole_error,
        "perplexity_ratio_first_tenth": ratio(*first)[0],
        "perplexity_ratio_last_tenth": ratio(*last)[0],
        "perplexity_last_over_first": value,
        "perplexity_last_over_first_two_sigma": error,
    }
