"""Our copies of others' protos have the fields of the originals."""

import pathlib

import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_tools import protoc
import grpc_tools

PROTOS = pathlib.Path(__file__).parents[2] / "proto"
WELL_KNOWN = pathlib.Path(grpc_tools.__file__).parent / "_proto"


def ours(path, work):
    out = work / "ours.binpb"
    assert protoc.main(["protoc", f"-I{PROTOS}", f"-I{WELL_KNOWN}",
                        f"--descriptor_set_out={out}", str(PROTOS / path)]) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(
        out.read_bytes()).file[0]


def fields(messages, prefix=""):
    """Every field as (message, field, number, kind), nested ones too."""
    for message in messages:
        name = prefix + message.name
        for field in message.field:
            yield (name, field.name, field.number, field.type, field.label,
                   field.type_name)
        for enum in message.enum_type:
            for value in enum.value:
                yield f"{name}.{enum.name}", value.name, value.number
        yield from fields(message.nested_type, name + ".")


def methods(file):
    return {(service.name, method.name, method.input_type, method.output_type,
             method.client_streaming, method.server_streaming)
            for service in file.service for method in service.method}


@pytest.mark.parametrize("path, module", [
    ("google/rpc/error_details.proto", error_details_pb2),
    ("google/rpc/status.proto", status_pb2),
    ("grpc/health/v1/health.proto", health_pb2),
])
def test_our_copy_has_fields_of_the_original(path, module, tmp_path):
    copy = ours(path, tmp_path)
    original = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(original)
    theirs = set(fields(original.message_type))
    assert copy.package == original.package
    assert list(fields(copy.message_type))
    for field in fields(copy.message_type):
        assert field in theirs
    assert methods(copy) <= methods(original)
