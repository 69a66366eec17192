"""Control, Admin, health and reflection."""

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import (proto_reflection_descriptor_database,
                                     reflection_pb2, reflection_pb2_grpc)
from millrace.v1 import (admin_pb2, admin_pb2_grpc, cache_policy_pb2,
                         common_pb2, control_pb2, control_pb2_grpc,
                         inference_pb2, session_pb2)

from raw_session import (ENDLESS, GREEDY, PLAIN, RawSession, as_inputs,
                         sinks)

Serving = health_pb2.HealthCheckResponse
DATA_SERVICES = ["millrace.v1.InferenceService", "millrace.v1.SessionService",
                 "millrace.v1.ControlService"]


# ---- Control ----

async def test_server_info(control):
    info = await control.GetServerInfo(control_pb2.GetServerInfoRequest())
    assert info.version
    backends = {b.name: b for b in info.backends}
    assert {"onednn", "reference"} <= backends.keys()
    assert [b.name for b in info.backends if b.in_use] == ["onednn"]
    assert backends["onednn"].device
    assert info.default_session_policy.HasField("sinks")
    limits = info.limits
    assert limits.max_receive_message_bytes == 4 << 20
    assert limits.max_pending_input_bytes == 1 << 20
    assert limits.default_turn_tokens == 1024
    assert not limits.HasField("max_turn_tokens")
    assert limits.heartbeat_interval.seconds == 15


async def test_policies_are_described(control):
    info = await control.GetServerInfo(control_pb2.GetServerInfoRequest())
    described = {p.name: p for p in info.policies}
    fields = cache_policy_pb2.CachePolicy.DESCRIPTOR.fields
    assert described.keys() == {field.name for field in fields}
    for field in fields:
        policy = described[field.name]
        assert policy.description and policy.supported
        assert ([o.name for o in policy.options] ==
                [f.name for f in field.message_type.fields])
        for option in policy.options:
            assert option.type and option.description


async def test_model_info(control, sessions):
    model = (await control.GetModelInfo(
        control_pb2.GetModelInfoRequest())).model
    assert (model.architecture, model.layers, model.heads, model.kv_heads,
            model.head_dim, model.embedding_length, model.vocabulary_size,
            model.trained_context_tokens) == (
                "llama", 30, 9, 3, 64, 576, 49152, 8192)
    assert model.kv_dtype == "int8"
    assert model.kv_bytes_per_token == 2 * 30 * 3 * (64 + 4)
    assert len(model.sha256) == 64 and model.file_bytes > 90_000_000
    assert model.weight_types[0].name == "Q4_1"
    assert model.chat_template.usable and model.chat_template.fingerprint
    assert 2 in model.tokenizer.end_of_turn_token_ids
    assert (await sessions()).opened.model == model


async def test_load_counts_sessions_and_blocks(control, sessions):
    empty = await control.GetLoad(control_pb2.GetLoadRequest())
    assert empty.reserved_blocks == empty.used_blocks == 0
    assert not empty.sessions and not empty.draining
    session = await sessions(format=PLAIN, sampling=GREEDY,
                             cache_policy=sinks(4, 60))
    await session.append("On", then_generate={"stopping": ENDLESS})
    await session.position(100)
    load = await control.GetLoad(control_pb2.GetLoadRequest())
    assert [(c.state, c.sessions) for c in load.sessions] == [
        (common_pb2.SESSION_STATE_WRITING, 1)]
    assert 0 < load.used_blocks <= load.reserved_blocks < load.total_blocks
    info = (await control.GetModelInfo(control_pb2.GetModelInfoRequest()))
    assert session.opened.reserved_bytes == (
        load.reserved_blocks * load.block_tokens *
        info.model.kv_bytes_per_token)
    await session.close()
    # The last event is sent before the memory is given back.
    while (await control.GetLoad(control_pb2.GetLoadRequest())
           ).reserved_blocks:
        pass


async def test_load_counts_requests(control, inference):
    call = inference.Generate(inference_pb2.GenerateRequest(
        inputs=as_inputs("On"), cache_policy=sinks(4, 60), stopping=ENDLESS))
    await call.read()
    load = await control.GetLoad(control_pb2.GetLoadRequest())
    assert load.running_requests == 1
    call.cancel()


# ---- Admin ----

async def test_admin_shows_a_session_and_no_text(admin, sessions):
    session = await sessions(format=PLAIN, client_tag="desk 7",
                             cache_policy=sinks(4, 60))
    await session.append("a secret word")
    await session.event("input_accepted")
    await session.update(response={"logprobs": 0})
    await session.event("options_updated")
    info = (await admin.GetSession(admin_pb2.GetSessionRequest(
        session_id=session.opened.session_id))).session
    assert info.session_id == session.opened.session_id
    assert info.client_tag == "desk 7"
    assert info.cache_policy.sinks.window_tokens == 60
    assert info.reserved_bytes == session.opened.reserved_bytes
    assert info.usage.text_position == 3
    assert info.create_time.seconds <= info.last_active_time.seconds
    assert b"secret" not in info.SerializeToString()


async def test_admin_lists_page_by_page(admin, sessions):
    ids = sorted([(await sessions(format=PLAIN)).opened.session_id
                  for _ in range(5)])
    listed, token, pages = [], "", 0
    while True:
        page = await admin.ListSessions(admin_pb2.ListSessionsRequest(
            page_size=2, page_token=token))
        assert len(page.sessions) <= 2
        listed += [s.session_id for s in page.sessions]
        token = page.next_page_token
        pages += 1
        if not token:
            break
    assert listed == ids and pages >= 3


async def test_admin_deletes(admin, sessions, failure_of):
    session = await sessions(format=PLAIN, sampling=GREEDY)
    await session.append("On", then_generate={"stopping": ENDLESS})
    await session.event("output")
    request = admin_pb2.DeleteSessionRequest(
        session_id=session.opened.session_id)
    await admin.DeleteSession(request)
    closed = await session.event("closed")
    assert closed.reason == session_pb2.CLOSE_REASON_DELETED
    assert await session.stream_end() is None
    assert session.last("turn_finished").reason == (
        common_pb2.FINISH_REASON_INTERRUPTED)
    failure = await failure_of(admin.DeleteSession(request))
    assert (failure.code, failure.reason) == ("NOT_FOUND",
                                              "SESSION_NOT_FOUND")


@pytest.mark.parametrize("fields", [{"page_size": -1},
                                    {"page_token": "\u00e9 nonsense"}])
async def test_admin_refuses_nonsense(admin, failure_of, fields):
    failure = await failure_of(admin.ListSessions(
        admin_pb2.ListSessionsRequest(**fields)))
    assert failure.reason == "INVALID_FIELD"
    assert failure.field == next(iter(fields))


async def test_admin_is_not_on_the_data_listener(channel, failure_of):
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    failure = await failure_of(stub.ListSessions(
        admin_pb2.ListSessionsRequest()))
    assert failure.code == "UNIMPLEMENTED"


# ---- Health ----

@pytest.fixture(params=["address", "health"])
async def health(server, request):
    async with grpc.aio.insecure_channel(
            getattr(server, request.param)) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("name", ["", "liveness", "readiness",
                                  *DATA_SERVICES])
async def test_health_of_a_name(health, name):
    request = health_pb2.HealthCheckRequest(service=name)
    assert (await health.Check(request)).status == Serving.SERVING
    watch = health.Watch(request)
    assert (await watch.read()).status == Serving.SERVING
    watch.cancel()


async def test_health_of_an_unknown_name(health, failure_of):
    request = health_pb2.HealthCheckRequest(service="nobody")
    assert (await failure_of(health.Check(request))).code == "NOT_FOUND"
    watch = health.Watch(request)
    assert (await watch.read()).status == Serving.SERVICE_UNKNOWN
    assert not watch.done()  # it stays open
    watch.cancel()


async def test_the_health_listener_has_nothing_else(server, failure_of):
    async with grpc.aio.insecure_channel(server.health) as channel:
        stub = control_pb2_grpc.ControlServiceStub(channel)
        failure = await failure_of(stub.GetLoad(control_pb2.GetLoadRequest()))
        assert failure.code == "UNIMPLEMENTED"


# ---- Reflection ----

def test_reflection_describes_every_message(server):
    with grpc.insecure_channel(server.address) as channel:
        database = (proto_reflection_descriptor_database
                    .ProtoReflectionDescriptorDatabase(channel))
        assert set(DATA_SERVICES) <= set(database.get_services())
        pool = descriptor_pool.DescriptorPool(database)
        told = pool.FindServiceByName("millrace.v1.SessionService")
        connect = told.methods_by_name["Connect"]
        ours = session_pb2.ConnectResponse.DESCRIPTOR
        assert connect.output_type.full_name == ours.full_name
        assert ({f.name: f.number for f in connect.output_type.fields} ==
                {f.name: f.number for f in ours.fields})


async def test_reflection_knows_no_secret_service(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = (await call.read()).list_services_response.service
    assert "millrace.v1.AdminService" not in {s.name for s in listed}
    call.cancel()


async def test_a_session_id_is_echoed_in_headers(channel):
    session = RawSession(channel)
    await session.open(format=PLAIN)
    headers = dict(await session.call.initial_metadata())
    assert headers["x-session-id"] == session.opened.session_id
    await session.close()


async def test_a_request_id_is_echoed(channel):
    stub = control_pb2_grpc.ControlServiceStub(channel)
    call = stub.GetLoad(control_pb2.GetLoadRequest(),
                        metadata=[("x-request-id", "desk-7-41")])
    await call
    assert dict(await call.initial_metadata())["x-request-id"] == "desk-7-41"
