"""Fixtures for tests of a real server over raw stubs."""

import asyncio
import os
import time

import grpc
import pytest

import failures
import raw_session
from millrace.v1 import (admin_pb2, admin_pb2_grpc, control_pb2_grpc,
                         inference_pb2, inference_pb2_grpc)

FULL = os.environ.get("MILLRACE_FULL") == "1"


@pytest.fixture
def full():
    """Whether the long forms were asked for."""
    return FULL


@pytest.fixture
async def channel(server):
    async with grpc.aio.insecure_channel(
            server.address, options=raw_session.CHANNEL_OPTIONS) as channel:
        yield channel


async def delete(session, admin):
    """Ends what a test left open, so that the next one has the server."""
    if session.opened is None or session.checker.closed is not None:
        return
    name = {"session_id": session.opened.session_id}
    try:
        await admin.DeleteSession(admin_pb2.DeleteSessionRequest(**name))
        while True:
            await admin.GetSession(admin_pb2.GetSessionRequest(**name))
    except grpc.aio.AioRpcError:
        pass  # it is gone, or the test has ended the server


@pytest.fixture
async def sessions(channel, admin):
    """Opens sessions: `await sessions(format=PLAIN)`; checks all at the end."""
    made = []

    async def make(on=None, metadata=(), **fields):
        session = raw_session.RawSession(on or channel, metadata)
        made.append(session)
        await session.open(**fields)
        return session

    yield make
    for session in made:
        await session.drop()
        await delete(session, admin)
    for session in made:
        session.check()


@pytest.fixture
def inference(channel):
    return inference_pb2_grpc.InferenceServiceStub(channel)


@pytest.fixture
def control(channel):
    return control_pb2_grpc.ControlServiceStub(channel)


@pytest.fixture
async def admin(server):
    async with grpc.aio.insecure_channel(server.admin) as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel)


@pytest.fixture
def tokens_of(inference):
    """`await tokens_of("text")`: its token ids."""
    async def tokenize(text):
        request = inference_pb2.TokenizeRequest(
            inputs=raw_session.as_inputs(text))
        return list((await inference.Tokenize(request)).token_ids)
    return tokenize


@pytest.fixture
def failure_of():
    """`await failure_of(call)`: the Failure of a call that must fail."""
    async def failure(call):
        try:
            if hasattr(call, "__aiter__"):
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return failures.of_call(error)
        pytest.fail("the call succeeded")
    return failure


@pytest.fixture
def eventually():
    """`await eventually(lambda: x == 3)`: looks until it is so."""
    async def look(condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            await asyncio.sleep(0.02)
    return look
