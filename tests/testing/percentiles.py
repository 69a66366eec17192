"""Percentiles of figures that were measured in rounds."""


def percentile(values, share):
    """The nearest of the values; `share` is 0.1 for the tenth percentile."""
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1) + 0.5)]
