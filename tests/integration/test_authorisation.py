"""Bearer tokens and TLS. The sweep walks the descriptors: an RPC that is added
and forgotten here is asked for all the same."""

import subprocess

import grpc
import millraced
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from millrace.v1 import (admin_pb2, common_pb2, control_pb2, inference_pb2,
                         session_pb2)

import exposition
import failures
from raw_session import GREEDY, PLAIN, RawSession, budget

TOKEN = "0123456789abcdef-correct"
FILES = [m.DESCRIPTOR for m in (admin_pb2, common_pb2, control_pb2,
                                inference_pb2, session_pb2)]
METHODS = [m for file in FILES for s in file.services_by_name.values()
           for m in s.methods]
CREDENTIALS = {
    "none": [],
    "wrong": [("authorization", "Bearer 0123456789abcdef-wrong!!")],
    "a part of it": [("authorization", f"Bearer {TOKEN[:-1]}")],
    "empty": [("authorization", "Bearer ")],
    "no scheme": [("authorization", TOKEN)],
    "another scheme": [("authorization", f"Basic {TOKEN}")],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("secrets") / "token"
    path.write_text(TOKEN + "\n")
    with millraced.running(f"--auth_token_file={path}") as process:
        yield process


def call(channel, method, metadata):
    """Calls a method with an empty message, whatever its kind."""
    kind = (("stream" if method.client_streaming else "unary") + "_" +
            ("stream" if method.server_streaming else "unary"))
    multi = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString)
    request = GetMessageClass(method.input_type)()
    given = iter([request]) if method.client_streaming else request
    return multi(given, metadata=metadata, timeout=20)


def failure(channel, method, metadata):
    try:
        response = call(channel, method, metadata)
        if method.server_streaming:
            for _ in response:
                pass
    except grpc.RpcError as error:
        return failures.of_call(error)
    return None


@pytest.mark.parametrize("credentials", CREDENTIALS)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_every_rpc_wants_the_token(server, method, credentials):
    service = method.containing_service.name
    address = server.admin if service == "AdminService" else server.address
    with grpc.insecure_channel(address) as channel:
        refused = failure(channel, method, CREDENTIALS[credentials])
    assert refused is not None
    assert (refused.code, refused.reason) == ("UNAUTHENTICATED",
                                              "UNAUTHENTICATED")
    assert "correct" not in refused.message


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.full_name)
def test_every_rpc_takes_the_token(server, method):
    """The control: with it the same calls get further."""
    service = method.containing_service.name
    address = server.admin if service == "AdminService" else server.address
    with grpc.insecure_channel(address) as channel:
        result = failure(channel, method,
                         [("authorization", f"Bearer {TOKEN}")])
    assert result is None or result.code != "UNAUTHENTICATED"


def test_the_sweep_knows_every_service():
    pool = descriptor_pool.Default()
    assert {m.containing_service.full_name for m in METHODS} == {
        f"millrace.v1.{name}Service"
        for name in ("Inference", "Session", "Control", "Admin")}
    assert pool.FindServiceByName("millrace.v1.SessionService")


async def test_health_is_free(server):
    for address in (server.address, server.health):
        async with grpc.aio.insecure_channel(address) as channel:
            status = (await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest())).status
            assert status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_is_off(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as error:
            list(stub.ServerReflectionInfo(iter([request])))
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_session_with_the_token(server):
    async with grpc.aio.insecure_channel(server.address) as channel:
        session = RawSession(channel,
                             [("authorization", f"Bearer {TOKEN}")])
        await session.open(format=PLAIN, sampling=GREEDY)
        seq = await session.append("On",
                                   then_generate={"stopping": budget(2)})
        await session.turn(seq)
        await session.close()


def test_failures_are_counted_and_never_logged(server):
    before = exposition.total(server, "millrace_auth_failures_total")
    with grpc.insecure_channel(server.address) as channel:
        for method in METHODS:
            if method.containing_service.name != "AdminService":
                failure(channel, method, [
                    ("authorization", "Bearer a-very-special-guess")])
    asked = sum(m.containing_service.name != "AdminService" for m in METHODS)
    after = exposition.total(server, "millrace_auth_failures_total")
    assert after == before + asked
    assert "a-very-special-guess" not in server.log()
    assert TOKEN not in server.log()


# ---- TLS ----

@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
         "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", paths[0],
         "-keyout", paths[1]], check=True, capture_output=True)
    return paths


async def test_tls(start_server, certificate):
    cert, key = certificate
    server = start_server(f"--tls_cert={cert}", f"--tls_key={key}")
    trusted = grpc.ssl_channel_credentials(cert.read_bytes())
    async with grpc.aio.secure_channel(server.address, trusted) as channel:
        session = RawSession(channel)
        await session.open(format=PLAIN, sampling=GREEDY)
        seq = await session.append("On",
                                   then_generate={"stopping": budget(2)})
        await session.turn(seq)
        await session.close()
    # In plaintext there is nobody.
    async with grpc.aio.insecure_channel(server.address) as channel:
        refused = await RawSession(channel).open_fails(format=PLAIN)
        assert refused.code == "UNAVAILABLE"
