"""Errors of calls and of messages, in one shape."""

import dataclasses

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclasses.dataclass
class Failure:
    """How a call or a message failed; empty fields where it did not say."""
    code: str
    message: str
    reason: str = ""
    field: str = ""
    metadata: dict = dataclasses.field(default_factory=dict)
    retry_after: float | None = None  # seconds
    pushback_ms: int | None = None  # grpc-retry-pushback-ms
    details: bytes = b""  # as they came


def code_name(number):
    return next(c.name for c in grpc.StatusCode if c.value[0] == number)


def of_call(error):
    """Failure of an RpcError, sync or asyncio; None for status OK."""
    return of_status(error.code(), error.details(), error.trailing_metadata())


def of_status(code, message, trailers):
    if code == grpc.StatusCode.OK:
        return None
    failure = Failure(code.name, message)
    trailers = dict(trailers or ())
    if "grpc-retry-pushback-ms" in trailers:
        failure.pushback_ms = int(trailers["grpc-retry-pushback-ms"])
    failure.details = trailers.get("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(failure.details)
    kinds = [d.type_url for d in status.details]
    assert len(kinds) == len(set(kinds)), "a kind of detail twice"
    for detail in status.details:
        _read_detail(detail, failure)
    return failure


def _read_detail(detail, failure):
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        assert info.domain == "millrace"
        failure.reason = info.reason
        failure.metadata = dict(info.metadata)
    elif detail.Unpack(bad):
        failure.field = bad.field_violations[0].field
    elif detail.Unpack(retry):
        failure.retry_after = retry.retry_delay.ToMicroseconds() / 1e6


def of_message(error):
    """Failure of a millrace.v1.Error."""
    retry_after = None
    if error.HasField("retry_after"):
        retry_after = error.retry_after.ToMicroseconds() / 1e6
    return Failure(code_name(error.code), error.message, error.reason,
                   error.field, dict(error.metadata), retry_after)
