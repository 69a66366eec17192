"""Generates the Python stubs of proto/millrace/v1 into a folder.

    python generate_stubs.py DIRECTORY

makes DIRECTORY/millrace/v1/*_pb2.py, *_pb2.pyi and *_pb2_grpc.py.
"""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generate(out):
    """Writes the stubs below `out`; raises RuntimeError if protoc fails."""
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    sources = sorted((PROTOS / "millrace" / "v1").glob("*.proto"))
    failed = protoc.main([
        "protoc",
        f"-I{PROTOS}",
        f"-I{well_known}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *map(str, sources),
    ])
    if failed:
        raise RuntimeError(f"protoc failed on {PROTOS}")


if __name__ == "__main__":
    generate(sys.argv[1])
