"""Servers that store keys and values in each of the types on offer."""

import json

import grpc
import millraced
import pytest
from client import run
from millrace.v1 import (control_pb2, control_pb2_grpc, inference_pb2,
                         inference_pb2_grpc)

from raw_session import GREEDY, as_inputs, budget

TEXT = "The river runs through the old town. In spring the water is"
# Of a key or a value of a head: 64 numbers, and the scale of 8-bit ones.
BYTES = {"f32": 256, "f16": 128, "bf16": 128, "int8": 64 + 4}


async def ask(channel):
    """Token ids and their log-probabilities after TEXT."""
    request = inference_pb2.GenerateRequest(
        inputs=as_inputs(TEXT), sampling=GREEDY, stopping=budget(4),
        response={"logprobs": 0})
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    outputs = [r.output async for r in stub.Generate(request)
               if r.HasField("output")]
    return ([i for o in outputs for i in o.token_ids],
            [p.chosen.logprob for o in outputs for p in o.logprobs])


def info(server):
    """What `millrace info` prints."""
    plain = run(server, "info")
    full = run(server, "info", "--json")
    assert (plain.returncode, full.returncode) == (0, 0)
    return plain.stdout, json.loads(full.stdout)


async def answer(dtype, *flags):
    """What a server with that --kv_dtype writes; it must say what it has."""
    with millraced.running(f"--kv_dtype={dtype}", *flags) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            control = control_pb2_grpc.ControlServiceStub(channel)
            model = (await control.GetModelInfo(
                control_pb2.GetModelInfoRequest())).model
            assert model.kv_dtype == dtype
            assert model.kv_bytes_per_token == BYTES[dtype] * 2 * 30 * 3
            return await ask(channel)


@pytest.mark.parametrize("backend", ["onednn", "reference"])
async def test_each_type_answers_in_its_own_precision(backend):
    answers = {dtype: await answer(dtype, f"--backend={backend}")
               for dtype in BYTES}
    ids, exact = answers["f32"]
    assert len(ids) == len(exact) == 4
    for dtype in set(BYTES) - {"f32"}:
        assert answers[dtype][1] == pytest.approx(exact, abs=0.3)
    values = [tuple(v) for _, v in answers.values()]
    assert len(set(values)) == len(BYTES), "two types are one"


@pytest.mark.parametrize("dtype, size", [("bf16", "22.5"), ("int8", "12.0")])
def test_info_says_what_a_token_takes(dtype, size):
    with millraced.running(f"--kv_dtype={dtype}") as server:
        text, model = info(server)
        assert f"{dtype}, {size} KiB a token" in text
        assert model["model"]["kv_dtype"] == dtype
