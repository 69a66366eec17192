"""Completes code at the cursor, once for each request.

Cache policy: `full`. What stands before the cursor is short and every token of
it counts: a name that was forgotten is a bug. Each request is on its own, and
its memory goes back when it ends.
"""

import argparse

import grpc
from millrace.v1 import common_pb2, inference_pb2, inference_pb2_grpc

SNIPPETS = [
    '''def add(a, b):
    """Returns the sum of a and b."""
    return''',
    '''class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        return self.''',
]


def complete(stub, code):
    """The rest of the line; the likeliest, so the same each time."""
    request = inference_pb2.GenerateRequest(
        inputs=[common_pb2.Input(text=code)],
        cache_policy={"full": {}},
        sampling={"temperature": 0},
        stopping={"max_tokens": 32, "stop_strings": ["\n"]})
    return "".join(event.output.text for event in stub.Generate(request)
                   if event.HasField("output"))


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--server", default="127.0.0.1:9000")
    with grpc.insecure_channel(flags.parse_args().server) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        for code in SNIPPETS:
            print(code + complete(stub, code) + "\n")


if __name__ == "__main__":
    main()
