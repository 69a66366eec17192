"""Figures of a server, beside those of the model in a process of its own."""

import json
import os
import subprocess
import time

import grpc
import millraced
from millrace.v1 import control_pb2, control_pb2_grpc


def bench(server, sessions, prompt_tokens, max_tokens):
    """What `millrace bench` says of one round, by the client's clock."""
    done = subprocess.run(
        [os.environ["MILLRACE_CLI"], f"--server={server.address}", "bench",
         "--json", "--rounds=1", f"--concurrency={sessions}",
         f"--prompt_tokens={prompt_tokens}", f"--max_tokens={max_tokens}"],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True)
    return json.loads(done.stdout)


def start_up(*flags):
    """Seconds until a server says that it is ready."""
    start = time.monotonic()
    with millraced.running(*flags):
        return time.monotonic() - start


def resident_beyond(prompt_tokens, max_tokens):
    """Megabytes that a server has, after one request, beyond its file of
    weights and the request's keys and values."""
    with millraced.running("--speculation=none") as server:
        bench(server, 1, prompt_tokens, max_tokens)
        with grpc.insecure_channel(server.address) as channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            model = stub.GetModelInfo(control_pb2.GetModelInfoRequest()).model
        kv_bytes = (prompt_tokens + max_tokens) * model.kv_bytes_per_token
        return (server.resident_bytes() - model.file_bytes - kv_bytes) / 1e6
