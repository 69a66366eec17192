"""The checker itself: it passes a true history and catches every false one."""

import copy

import pytest
from millrace.v1 import session_pb2

from checker import Checker
from raw_session import GREEDY, PLAIN, budget, sinks

# Kinds without which the text or its evictions cannot be accounted for.
BEARING = {"output", "input_accepted", "turn_started", "turn_finished",
           "cache_update"}


@pytest.fixture
async def history(sessions):
    """(requests, responses) of a session in which much happens."""
    session = await sessions(
        format=PLAIN, sampling=GREEDY, cache_policy=sinks(4, 20),
        response={"cache_update_interval_tokens": 5})
    requests = []
    sent = session.checker.sent
    session.checker.sent = lambda r: (requests.append(r), sent(r))
    seq = await session.append("The river runs through the old town",
                               then_generate={"stopping": budget(30)})
    await session.event("output")
    await session.append(" (they say)")
    await session.turn(seq)
    seq = await session.generate(stopping=budget(20))
    await session.turn(seq)
    await session.interrupt()
    await session.close()
    return requests, session.events


def caught(requests, responses):
    checker = Checker()
    for request in requests:
        checker.sent(request)
    try:
        for response in responses:
            checker.see(response)
        assert checker.closed is not None
    except AssertionError:
        return True
    return False


def renumbered(responses):
    out = copy.deepcopy(responses)
    for number, response in enumerate(out, 1):
        response.sequence_number = number
    return out


def bearing(responses):
    return [i for i, r in enumerate(responses)
            if r.WhichOneof("event") in BEARING]


async def test_a_true_history_passes(history):
    requests, responses = history
    assert not caught(requests, responses)
    assert not caught(requests, renumbered(responses))


async def test_a_lost_event_is_caught(history):
    requests, responses = history
    for i in range(len(responses)):
        assert caught(requests, responses[:i] + responses[i + 1:])
    for i in bearing(responses):
        assert caught(requests,
                      renumbered(responses[:i] + responses[i + 1:])), i


async def test_an_event_twice_is_caught(history):
    requests, responses = history
    for i in range(len(responses)):
        assert caught(requests, responses[:i + 1] + responses[i:])
    for i in bearing(responses):
        assert caught(requests,
                      renumbered(responses[:i + 1] + responses[i:])), i


async def test_two_events_swapped_are_caught(history):
    requests, responses = history
    for i in range(len(responses) - 1):
        swapped = list(responses)
        swapped[i:i + 2] = reversed(swapped[i:i + 2])
        assert caught(requests, swapped)


async def test_a_token_more_or_less_is_caught(history):
    requests, responses = history
    for i, response in enumerate(responses):
        for change in (lambda o: o.token_ids.append(7),
                       lambda o: o.token_ids.pop(),
                       lambda o: setattr(o, "text_position",
                                         o.text_position + 1)):
            if not response.output.token_ids:
                continue
            changed = copy.deepcopy(responses)
            change(changed[i].output)
            assert caught(requests, changed)


async def test_a_wrong_eviction_is_caught(history):
    requests, responses = history
    updates = [i for i, r in enumerate(responses) if r.HasField("cache_update")]
    assert len(updates) > 3
    for i in updates:
        for field in ("begin", "end"):
            for by in (-1, 1):
                changed = copy.deepcopy(responses)
                evicted = changed[i].cache_update.evicted[0]
                setattr(evicted, field, getattr(evicted, field) + by)
                assert caught(requests, changed)


async def test_a_turn_without_an_end_is_caught(history):
    requests, responses = history
    ghost = session_pb2.ConnectRequest(client_seq=99,
                                       generate=session_pb2.StartTurn())
    assert caught([*requests, ghost], responses)
