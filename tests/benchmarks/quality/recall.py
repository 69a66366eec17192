"""What can be copied: a random string in the text, and the same once more.

Its second reading is easy if the first is still seen, and as hard as the first
if not: the ratio of the two mean negative log-likelihoods says which.
"""

import random

from ratios import mean, mean_and_error

STRING_TOKENS = 32
ORDINARY = range(1000, 40000)  # tokens of common pieces of words


def random_string(seed):
    dice = random.Random(seed)
    return [dice.choice(ORDINARY) for _ in range(STRING_TOKENS)]


def probe(filler, before, distance, string):
    """A text with the string after `before` tokens, and `distance` later."""
    between = distance - len(string)
    assert before + between <= len(filler)
    return (filler[:before] + string +
            filler[before:before + between] + string)


async def copied(scorer, policy, text, first):
    """Nats a token of the second reading over those of the first."""
    nlls = await scorer.nlls(policy, text)
    return (mean(nlls[-STRING_TOKENS:]) /
            mean(nlls[first:first + STRING_TOKENS]))


def distances(size):
    """Their names, and whether the string is within the window then."""
    reach = size - 5
    return {"R/2": reach // 2, "R - 64": reach - 64, "R + 64": reach + 64,
            "2 R": 2 * reach}


async def recall_rows(scorer, policy, ids, size, strings):
    """Q10 at each distance; S5: the same from a pinned prefix, much later.

    That is 10 C tokens, or as many as the text has.
    """
    for name, distance in distances(size).items():
        ratios = []
        for seed in range(strings):
            text = probe(ids[seed * 1000:], size, distance,
                         random_string(seed))
            ratios.append(await copied(scorer, policy, text, size))
        yield "Q10", f"second / first reading, {name}", *mean_and_error(ratios)
    before = 8
    for name, pin in (("pinned", before + STRING_TOKENS), ("not pinned", 0)):
        ratios = []
        for seed in range(min(2, strings)):
            filler = ids[seed * 1000:]
            distance = min(10 * size, len(filler) - before + STRING_TOKENS)
            text = probe(filler, before, distance, random_string(seed))
            ratios.append(await copied(
                scorer, f"{policy},pin_tokens={pin}", text, before))
        yield "S5", f"the same, much later, {name}", *mean_and_error(ratios)
