"""What every session promises, checked event by event.

    checker = Checker()
    checker.sent(request)       # what the client says
    checker.see(response)       # what the server says; raises AssertionError

Numbers of events are contiguous, every text position is told once, what is
announced as evicted is what the policy's formula says, and every turn that was
asked for ends exactly once. Knows nothing of the server's code: the formulas
are those of the protos.
"""

import collections

from millrace.v1 import common_pb2

# Policies that choose by attention: no formula says what they evict.
CHOOSING = {"tova", "h2o", "snapkv"}

INPUT = None  # stands in `Checker.text` for a token that the client gave


def pinned(policy, system_tokens):
    """The tokens that the policy's pins keep at the start of the text."""
    kind = policy.WhichOneof("policy")
    if kind in ("full", "window"):
        return 0
    options = getattr(policy, kind)
    return max(options.pin_tokens,
               system_tokens if options.pin_system_prompt else 0)


def evicted(policy, system_tokens, length):
    """The positions that the newest of `length` tokens does not see.

    Args:
      policy: a CachePolicy with all its options set.
      system_tokens: tokens of the system block.
      length: tokens of the text.
    """
    kind = policy.WhichOneof("policy")
    if kind == "full":
        return range(0)
    options = getattr(policy, kind)
    prefix = pinned(policy, system_tokens)
    newest = length - 1
    if kind == "shift":
        prefix = max(prefix, options.n_keep)
        beyond = newest - options.context_tokens + 1
        steps = max(0, -(-beyond // options.n_discard))
        return range(prefix, prefix + steps * options.n_discard)
    if kind == "reprefill":
        beyond = newest - prefix - options.window_tokens
        steps = max(0, -(-beyond // options.rebuild_every))
        return range(prefix, prefix + steps * options.rebuild_every)
    if kind == "sinks":
        prefix = max(prefix, options.sink_tokens)
    # The newest sees the prefix, the window before it, and itself.
    return range(prefix, max(prefix, length - 1 - options.window_tokens))


class Checker:
    """Follows one session from `opened` to `closed`.

    Attributes:
      text: the whole text: ids of what the server wrote, `INPUT` for the rest.
      evicted: the set of positions announced as evicted and not restored.
      last_number: of the last event.
    """

    def __init__(self):
        self.opened = None
        self.closed = None
        self.text = []
        self.evicted = set()
        self.last_number = 0
        self.running = {}  # turn -> its text position and tokens written
        self.finished = {}  # turn -> TurnFinished
        self._asked = {}  # client_seq -> arm, of turns asked for
        self._options = collections.deque()  # arms that options_updated answers
        self._seqs = set()
        self._reading = False  # an input that may not be read to its end

    # ---- The client's side ----

    def sent(self, request):
        """Notes a message; one that is sent again only once."""
        if request.client_seq in self._seqs:
            return
        self._seqs.add(request.client_seq)
        arm = request.WhichOneof("message")
        if arm == "generate" or (arm == "append" and
                                 request.append.HasField("then_generate")):
            self._asked[request.client_seq] = arm
        if arm in ("update", "reset"):
            self._options.append((request.client_seq, arm))

    # ---- The server's side ----

    def see(self, response):
        kind = response.WhichOneof("event")
        assert kind, "an event without an arm"
        if kind == "heartbeat":
            assert response.sequence_number == 0
            return
        assert self.closed is None, f"{kind} after closed"
        message = getattr(response, kind)
        if kind == "resumed" and message.gap:
            assert response.sequence_number > self.last_number
        else:
            assert response.sequence_number == self.last_number + 1, (
                f"{kind} is event {response.sequence_number} after "
                f"{self.last_number}")
        self.last_number = response.sequence_number
        assert (kind == "opened") == (response.sequence_number == 1)
        getattr(self, f"_on_{kind}", lambda message: None)(message)

    def _on_opened(self, opened):
        self.opened = opened
        self.text = list(opened.system_token_ids)

    def _on_resumed(self, resumed):
        if resumed.gap:
            self._skip_to(resumed)
        assert resumed.text_position == len(self.text)

    def _skip_to(self, resumed):
        """What came meanwhile is lost, so it cannot be checked."""
        lost = resumed.text_position - len(self.text)
        self.text += [INPUT] * lost
        del self.text[resumed.text_position:]
        self.evicted = None
        self._asked = None
        if resumed.turn:
            self.running.setdefault(resumed.turn, [0, None])

    def _on_input_accepted(self, accepted):
        assert accepted.text_position == len(self.text)
        assert not accepted.turn or accepted.turn in self.running
        self.text += [INPUT] * accepted.tokens
        self._reading = True

    def _on_input_progress(self, progress):
        assert progress.tokens_read <= progress.tokens_total
        assert progress.forgotten_tokens <= progress.tokens_read

    def _on_turn_started(self, started):
        assert started.turn not in self.running
        assert started.turn not in self.finished
        assert started.text_position == len(self.text)
        self._check_evicted(len(self.text))
        self._reading = False
        self.text += started.prefix_token_ids
        self.running[started.turn] = [len(self.text), 0]

    def _on_output(self, output):
        assert output.turn in self.running, "output outside its turn"
        if not output.token_ids:
            assert output.text_position <= len(self.text)
            return
        assert output.text_position == len(self.text)
        assert len(output.logprobs) in (0, len(output.token_ids))
        self.text += output.token_ids
        self._reading = False
        if self.running[output.turn][1] is not None:
            self.running[output.turn][1] += len(output.token_ids)

    def _on_cache_update(self, update):
        assert update.text_position <= len(self.text)
        if self.evicted is None:
            return
        ranges = [range(r.begin, r.end) for r in update.evicted]
        assert all(ranges), "an empty range"
        assert all(a.stop < b.start for a, b in zip(ranges, ranges[1:])), (
            "ranges that are not merged")
        for positions in ranges:
            assert self.evicted.isdisjoint(positions), "evicted twice"
            self.evicted.update(positions)
        for positions in (range(r.begin, r.end) for r in update.restored):
            assert self.evicted.issuperset(positions), "restored unseen"
            self.evicted.difference_update(positions)
        self._check_evicted(update.text_position)
        assert update.total_evicted_tokens == len(self.evicted)
        assert (update.visible_tokens ==
                update.text_position - len(self.evicted))
        assert (update.sink_tokens + update.window_tokens ==
                update.visible_tokens)

    def _check_evicted(self, length):
        if self.evicted is None:
            return
        policy = self.opened.effective_options.cache_policy
        system_tokens = len(self.opened.system_token_ids)
        if policy.WhichOneof("policy") in CHOOSING:
            return self._check_chosen(policy, system_tokens, length)
        expected = set(evicted(policy, system_tokens, length))
        assert self.evicted == expected, (
            f"at {length} tokens {len(self.evicted)} are evicted, not "
            f"{len(expected)}")

    def _check_chosen(self, policy, system_tokens, length):
        options = getattr(policy, policy.WhichOneof("policy"))
        prefix = max(options.sink_tokens, pinned(policy, system_tokens))
        assert not self.evicted or min(self.evicted) >= prefix
        assert length - len(self.evicted) >= min(length, options.budget_tokens)

    def _on_turn_finished(self, finished):
        assert finished.turn not in self.finished, "a turn finished twice"
        self.finished[finished.turn] = finished
        position, written = self.running.pop(finished.turn, (None, 0))
        if position is None:
            return  # it ended before it started
        assert position <= finished.kept_until <= len(self.text)
        del self.text[finished.kept_until:]
        assert finished.usage.text_position == len(self.text)
        if not self._reading:
            self._check_evicted(len(self.text))
        if self.opened.effective_options.response.token_ids and (
                written is not None):
            assert finished.usage.generated_tokens == written
        assert finished.HasField("error") == (
            finished.reason == common_pb2.FINISH_REASON_ERROR)

    def _on_options_updated(self, updated):
        _, arm = self._options.popleft()
        if arm == "reset":
            assert not self.running, "reset with a running turn"
            self.text = list(self.opened.system_token_ids)
            if self.evicted is not None:
                self.evicted = set()

    def _on_rejected(self, rejected):
        assert rejected.error.code > 0
        assert rejected.error.reason
        assert rejected.error.message
        if self._asked is not None:
            self._asked.pop(rejected.client_seq, None)
        self._options = collections.deque(
            o for o in self._options if o[0] != rejected.client_seq)

    def _on_closed(self, closed):
        self.closed = closed
        assert not self.running, f"turns {self.running} never finished"
        if self._asked is not None:
            assert len(self._asked) == len(self.finished), (
                f"{len(self._asked)} turns were asked for, "
                f"{len(self.finished)} finished")
