"""Turns: what starts them, what goes into them, what ends them."""

import pytest
from google.protobuf import duration_pb2
from millrace.v1 import common_pb2, inference_pb2, session_pb2

from raw_session import (CHAT, ENDLESS, GREEDY, PLAIN, as_inputs, budget,
                         sinks)


@pytest.fixture
async def plain(sessions):
    return await sessions(format=PLAIN, sampling=GREEDY)


@pytest.fixture
async def chat(sessions):
    return await sessions(format=CHAT, sampling=GREEDY)


def reason(finished):
    return common_pb2.FinishReason.Name(finished.reason).removeprefix(
        "FINISH_REASON_")


# ---- generate ----

async def test_generate_goes_on_where_the_budget_ended(sessions):
    parts = await sessions(format=CHAT, sampling=GREEDY)
    seq = await parts.append(message="Name rivers.",
                             then_generate={"stopping": budget(8)})
    assert reason(await parts.turn(seq)) == "MAX_TOKENS"
    seq = await parts.generate(stopping=budget(8))
    await parts.turn(seq)
    assert (await parts.event("turn_started", started_by=seq)).continued

    whole = await sessions(format=CHAT, sampling=GREEDY)
    seq = await whole.append(message="Name rivers.",
                             then_generate={"stopping": budget(16)})
    await whole.turn(seq)
    assert parts.ids() == whole.ids()


async def test_new_message_opens_one_in_any_case(chat):
    seq = await chat.append(message="Hi",
                            then_generate={"stopping": budget(3)})
    await chat.turn(seq)
    seq = await chat.generate(stopping=budget(3), new_message=True)
    await chat.turn(seq)
    started = await chat.event("turn_started", started_by=seq)
    assert not started.continued and started.prefix_token_ids


async def test_a_turn_that_ended_itself_is_not_continued(chat):
    seq = await chat.append(
        message="Say yes.",
        then_generate={"stopping": {"max_tokens": 200}})
    assert reason(await chat.turn(seq)) == "END_OF_TURN"
    seq = await chat.generate(stopping=budget(2))
    started = await chat.event("turn_started", started_by=seq)
    assert not started.continued and started.prefix_token_ids


async def test_generate_without_any_text_is_refused(plain):
    seq = await plain.generate()
    assert (await plain.rejected(seq)).reason == "INVALID_FIELD"


async def test_numbers_turns_from_one(plain):
    await plain.append("on and")
    for number in (1, 2, 3):
        seq = await plain.generate(stopping=budget(1))
        await plain.turn(seq)
        assert (await plain.event("turn_started",
                                  started_by=seq)).turn == number


# ---- Stops ----

async def test_a_stop_string_does_not_leak(plain):
    await plain.append("1, 2, 3, 4,")
    seq = await plain.generate(stopping={"max_tokens": 60,
                                         "stop_strings": [" 9, 1"]})
    finished = await plain.turn(seq)
    assert reason(finished) == "STOP"
    assert finished.stop_match.stop_string == " 9, 1"
    assert finished.stop_match.trimmed_text.startswith(" 9, 1")
    assert " 9" not in plain.text()


async def test_a_stop_token_has_no_text(plain, tokens_of):
    comma = (await tokens_of(","))[0]
    await plain.append("1, 2, 3, 4, 5")
    seq = await plain.generate(stopping={"max_tokens": 60,
                                         "stop_token_ids": [comma]})
    finished = await plain.turn(seq)
    assert reason(finished) == "STOP"
    assert finished.stop_match.stop_token_id == comma
    assert plain.ids()[-1] == comma and "," not in plain.text()


async def test_repetition_ends_a_turn(plain, tokens_of):
    comma = (await tokens_of(","))[0]
    await plain.append("a")
    seq = await plain.generate(
        sampling={"temperature": 0,
                  "logit_bias": [{"token_id": comma, "bias": 100}]},
        stopping={"unlimited": {}, "repetition_guard": 16})
    finished = await plain.turn(seq)
    assert reason(finished) == "REPETITION"
    assert plain.ids() == [comma] * finished.usage.generated_tokens


async def test_a_time_limit_ends_a_turn(plain):
    await plain.append("on and on")
    seq = await plain.generate(stopping={
        "unlimited": {}, "ignore_end_of_turn": True, "repetition_guard": 0,
        "time_limit": duration_pb2.Duration(nanos=50_000_000)})
    assert reason(await plain.turn(seq)) == "TIME_LIMIT"
    seq = await plain.generate(stopping=budget(2))
    await plain.turn(seq)


async def test_full_ends_with_capacity(sessions):
    session = await sessions(format=PLAIN, sampling=GREEDY,
                             cache_policy={"full": {"max_tokens": 24}})
    await session.append("one two three")
    seq = await session.generate(stopping=ENDLESS)
    finished = await session.turn(seq)
    assert reason(finished) == "CAPACITY"
    assert finished.usage.text_position == 24


async def test_full_ends_with_an_error_if_told_so(sessions):
    session = await sessions(format=PLAIN, sampling=GREEDY, cache_policy={
        "full": {"max_tokens": 24, "on_full": "ON_FULL_ERROR"}})
    await session.append("one two three")
    seq = await session.generate(stopping=ENDLESS)
    finished = await session.turn(seq)
    assert reason(finished) == "ERROR"
    assert finished.error.reason == "CACHE_FULL"
    await session.reset()
    await session.event("options_updated")
    await session.append("one two three")
    seq = await session.generate(stopping=budget(2))
    assert reason(await session.turn(seq)) == "MAX_TOKENS"


# ---- Input in and after turns ----

async def writing(session, **first):
    seq = await session.append(**first, then_generate={"stopping": ENDLESS})
    await session.event("output")
    return seq


async def test_a_message_waits_until_the_turn_is_over(chat):
    turn = await writing(chat, message="Count to a million.")
    waits = await chat.append(message="And back.")
    await chat.event("input_queued", client_seq=waits)
    placed = await chat.append(" seven")  # overtakes it
    await chat.event("input_accepted", client_seq=placed)
    assert not chat.all("input_accepted", client_seq=waits)
    await chat.interrupt()
    finished = await chat.turn(turn)
    accepted = await chat.event("input_accepted", client_seq=waits)
    assert accepted.turn == 0
    assert accepted.text_position == finished.kept_until


async def test_a_message_at_the_next_step_ends_the_turn(chat):
    turn = await writing(chat, message="Count to a million.")
    seq = await chat.append(message="Stop. Say hello.", next_step={})
    assert reason(await chat.turn(turn)) == "INPUT"
    await chat.event("input_accepted", client_seq=seq)
    assert len(chat.all("turn_started")) == 1  # no new turn without asking


async def test_a_message_at_the_next_step_can_start_a_new_turn(chat):
    turn = await writing(chat, message="Count to a million.")
    seq = await chat.append(message="Stop. Say hello.", next_step={},
                            then_generate={"stopping": budget(4)})
    assert reason(await chat.turn(turn)) == "INPUT"
    assert (await chat.turn(seq)).usage.generated_tokens == 4


async def test_text_can_wait_for_the_end_of_the_turn(plain):
    turn = await writing(plain, text="So it")
    seq = await plain.append(" The end", after_turn={})
    await plain.event("input_queued", client_seq=seq)
    await plain.interrupt()
    finished = await plain.turn(turn)
    accepted = await plain.event("input_accepted", client_seq=seq)
    assert (accepted.turn, accepted.text_position) == (0, finished.kept_until)


async def test_only_in_the_turn_that_is_meant(plain):
    turn = await writing(plain, text="So it")
    inside = await plain.append(" goes", only_in_turn_started_by=turn)
    assert (await plain.event("input_accepted", client_seq=inside)).turn == 1
    await plain.interrupt()
    await plain.turn(turn)
    late = await plain.append(" on", only_in_turn_started_by=turn)
    failure = await plain.rejected(late)
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "TURN_OVER")


async def test_text_outside_a_message_is_refused_in_chat(chat):
    failure = await chat.rejected(await chat.append("loose text"))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "NOT_IN_MESSAGE")


async def test_chat_messages_are_refused_in_plain_text(plain):
    failure = await plain.rejected(await plain.append(message="hi"))
    assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",
                                              "INVALID_FIELD")


async def test_mixed_kinds_need_a_placement(chat):
    mixed = as_inputs("text") + as_inputs(message="message")
    seq = await chat.send(append=session_pb2.AppendInput(inputs=mixed))
    assert (await chat.rejected(seq)).reason == "INVALID_FIELD"


async def test_the_model_can_be_given_a_reply(chat, inference):
    """An assistant message of the client's own is a part of the text."""
    said = [("ROLE_USER", "My name is Ada."), ("ROLE_ASSISTANT", "Hello Ada."),
            ("ROLE_USER", "What is my name?")]
    for role, text in said:
        await chat.append(message=text, role=role)
    seq = await chat.generate(stopping=budget(1))
    await chat.turn(seq)
    rendered = await inference.Tokenize(inference_pb2.TokenizeRequest(
        inputs=[as_inputs(message=text, role=role)[0] for role, text in said],
        add_generation_prompt=True))
    started = await chat.event("turn_started")
    assert (started.text_position + len(started.prefix_token_ids) ==
            len(rendered.token_ids))


# ---- Text in pieces ----

async def test_pieces_are_one_text(plain, tokens_of):
    text = "internationalisation of the Rhône's floods — 1,000,000 m³"
    cuts = [3, 9, 17, 31, 44]
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, None])]
    for piece in pieces[:-1]:
        await plain.append(piece, more_follows=True)
    last = await plain.append(pieces[-1])
    await plain.event("input_accepted", client_seq=last)
    accepted = plain.all("input_accepted")
    assert sum(a.tokens for a in accepted) == len(await tokens_of(text))


async def test_pieces_write_what_the_whole_writes(plain, sessions):
    await plain.append("The rivers of Eur", more_follows=True)
    seq = await plain.append("ope are", then_generate={"stopping": budget(8)})
    await plain.turn(seq)
    whole = await sessions(format=PLAIN, sampling=GREEDY)
    seq = await whole.append("The rivers of Europe are",
                             then_generate={"stopping": budget(8)})
    await whole.turn(seq)
    assert plain.ids() == whole.ids()


async def test_a_rejected_piece_rejects_the_rest(plain):
    await plain.append("first ", more_follows=True)
    bad = await plain.append(ids=[10**6], more_follows=True)
    assert (await plain.rejected(bad)).reason == "INVALID_FIELD"
    rest = await plain.append(" third", more_follows=True)
    assert (await plain.rejected(rest)).reason == "PREVIOUS_REJECTED"
    last = await plain.append(" fourth")
    assert (await plain.rejected(last)).reason == "PREVIOUS_REJECTED"
    new = await plain.append(" new text")
    await plain.event("input_accepted", client_seq=new)


# ---- Options ----

async def test_update_counts_from_the_next_turn(plain):
    turn = await writing(plain, text="So it")
    await plain.update(stopping=budget(3))
    updated = await plain.event("options_updated")
    assert updated.effective_options.stopping.max_tokens == 3
    await plain.interrupt()
    await plain.turn(turn)
    seq = await plain.generate()
    assert (await plain.turn(seq)).usage.generated_tokens == 3


async def test_update_replaces_a_message_whole(sessions):
    session = await sessions(format=PLAIN, sampling={"temperature": 0.5,
                                                     "top_k": 7})
    await session.update(sampling={"temperature": 0.25})
    sampling = (await session.event(
        "options_updated")).effective_options.sampling
    assert sampling.temperature == 0.25
    assert sampling.top_k == 0  # the default again, not merged


async def test_a_bad_update_changes_nothing(plain):
    seq = await plain.update(sampling={"temperature": -1})
    failure = await plain.rejected(seq)
    assert failure.field == "sampling.temperature"
    await plain.update(response={"logprobs": 1})
    options = (await plain.event("options_updated")).effective_options
    assert options.sampling.temperature == 0


async def test_every_effective_option_is_shown(sessions):
    session = await sessions()
    options = session.opened.effective_options
    for message, unset in ((options.sampling, set()),
                           (options.stopping, {"time_limit"}),
                           (options.response, {"logprobs"})):
        for field in message.DESCRIPTOR.fields:
            if field.has_presence and not field.containing_oneof and (
                    field.name not in unset):
                assert message.HasField(field.name), field.name
    assert options.cache_policy.sinks.sink_tokens == 4
    assert options.model == session.opened.model.name


async def test_logprobs_come_with_each_token(plain):
    await plain.append("The capital of France is")
    seq = await plain.generate(stopping=budget(4), response={"logprobs": 3})
    await plain.turn(seq)
    logprobs = [p for o in plain.all("output") for p in o.logprobs]
    assert [p.chosen.token_id for p in logprobs] == plain.ids()
    for entry in logprobs:
        assert len(entry.top) == 3
        assert entry.top[0].token_id == entry.chosen.token_id  # greedy
        assert 0 >= entry.top[0].logprob >= entry.top[1].logprob


async def test_text_and_ids_can_be_left_out(plain):
    await plain.append("The capital of France is")
    seq = await plain.generate(stopping=budget(4), response={"text": False})
    await plain.turn(seq)
    assert len(plain.ids()) == 4 and not plain.text()


# ---- Reset ----

async def test_reset_is_the_state_after_open(sessions):
    session = await sessions(format=CHAT, system_prompt="Be brief.",
                             sampling=GREEDY, cache_policy=sinks(4, 30))
    first = await session.append(message="Name a river.",
                                 then_generate={"stopping": budget(50)})
    await session.turn(first)
    assert session.checker.evicted
    await session.reset()
    await session.event("options_updated")
    again = await session.append(message="Name a river.",
                                 then_generate={"stopping": budget(50)})
    await session.turn(again)
    assert session.ids(turn=1) == session.ids(turn=2)
    assert (await session.event("input_accepted", client_seq=again)
            ).text_position == len(session.opened.system_token_ids)


async def test_reset_interrupts_and_drops(chat):
    turn = await writing(chat, message="Count to a million.")
    waits = await chat.append(message="And back.", then_generate={})
    await chat.event("input_queued", client_seq=waits)
    await chat.reset()
    await chat.event("options_updated")
    assert reason(await chat.turn(turn)) == "INTERRUPTED"
    assert len(chat.all("turn_finished")) == 2
    assert not chat.all("input_accepted", client_seq=waits)
    await chat.close()


# ---- Numbers of messages ----

async def test_a_gap_is_refused_and_uses_no_number(plain):
    seq = await plain.append("one")
    await plain.event("input_queued", client_seq=seq)
    request = session_pb2.AppendInput(inputs=as_inputs("two"))
    await plain.send(client_seq=seq + 5, append=request)
    failure = await plain.rejected(seq + 5)
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                              "SEQUENCE_GAP")
    assert failure.metadata["expected_seq"] == str(seq + 1)
    right = await plain.append("two")
    assert right == seq + 1
    await plain.event("input_queued", client_seq=right)


async def test_a_duplicate_gets_the_first_answer_and_does_nothing(plain):
    request = session_pb2.AppendInput(inputs=as_inputs("one two"))
    seq = await plain.send(append=request)
    await plain.event("input_accepted", client_seq=seq)
    length = len(plain.checker.text)
    for _ in range(3):
        await plain.send(client_seq=seq, append=request)
    await plain.until(
        lambda: len(plain.all("input_queued", client_seq=seq)) == 4)
    assert len(set(m.tokens for m in plain.all("input_queued"))) == 1
    after = await plain.append(" three")
    await plain.event("input_accepted", client_seq=after)
    assert len(plain.all("input_accepted", client_seq=seq)) == 1
    assert plain.last("input_accepted").text_position == length


async def test_a_rejected_message_uses_its_number_up(plain):
    bad = await plain.append(ids=[10**6])
    await plain.rejected(bad)
    await plain.send(client_seq=bad, append=session_pb2.AppendInput(
        inputs=as_inputs("good")))
    await plain.until(lambda: len(plain.all("rejected")) == 2)
    assert plain.all("rejected")[0] == plain.all("rejected")[1]


async def test_messages_without_a_number_are_counted(plain):
    await plain.send(client_seq=None, append=session_pb2.AppendInput(
        inputs=as_inputs("one")))
    await plain.event("input_queued", client_seq=2)
