"""Errors of the service, whichever way they came."""

import grpc
from google.rpc import error_details_pb2, status_pb2


class MillraceError(Exception):
    """A refused call or message.

    Attributes:
      code: the name of the gRPC code, such as "FAILED_PRECONDITION".
      reason: what programs can rely on, such as "TURN_RUNNING"; may be empty.
      message: for people.
    """

    def __init__(self, code, reason, message):
        super().__init__(f"{message} ({reason or code})")
        self.code = code
        self.reason = reason
        self.message = message


def code_name(number):
    """The name of a google.rpc.Code."""
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code.name
    return "UNKNOWN"


def from_call(error):
    """MillraceError of a grpc.aio.AioRpcError."""
    reason = ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    reason = info.reason
    return MillraceError(error.code().name, reason, error.details())
