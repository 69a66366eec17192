"""Perplexities compared position by position, with their errors.

Errors are twice the standard error of the mean. Neighbouring tokens are taken
as independent, so they are a little too small.
"""

import math


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def mean_and_error(values):
    middle = mean(values)
    variance = mean((v - middle) ** 2 for v in values)
    return middle, 2 * math.sqrt(variance / len(values))


def perplexity(nlls):
    return math.exp(mean(nlls))


def ratio(above, below):
    """Of two perplexities over the same tokens, from paired differences."""
    assert len(above) == len(below)
    middle, error = mean_and_error([a - b for a, b in zip(above, below)])
    return math.exp(middle), math.exp(middle) * error


def ratio_of_ratios(last, first):
    """`ratio(*last)` over `ratio(*first)`; the two are of different tokens."""
    a, a_error = ratio(*last)
    b, b_error = ratio(*first)
    return a / b, a / b * math.hypot(a_error / a, b_error / b)
