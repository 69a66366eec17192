"""Talks to the pod `millrace`, container `millraced`, until it has drained.

  pod_check.py PODMAN...    the command that calls podman, with its flags

Prints `ok NAME` or `not ok NAME: why` for each fact. Messages are built from
what server reflection says, so no generated code is needed.
"""

import json
import queue
import subprocess
import sys
import time
import traceback
import urllib.request

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import proto_reflection_descriptor_database

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ["grpc.health.v1.Health", "millrace.v1.ControlService",
            "millrace.v1.InferenceService", "millrace.v1.SessionService"]


class Pod:
    """The running pod, as a kubelet and a client see it."""

    def __init__(self, podman):
        self.podman = podman
        infra = self.inspect("pod", "millrace")["InfraContainerID"]
        networks = self.inspect("container", infra)["NetworkSettings"]
        self.address = next(
            n["IPAddress"] for n in networks["Networks"].values())
        self.data = grpc.insecure_channel(f"{self.address}:9000")
        self.health = health_pb2_grpc.HealthStub(
            grpc.insecure_channel(f"{self.address}:9003"))
        reflection = proto_reflection_descriptor_database \
            .ProtoReflectionDescriptorDatabase(self.data)
        self.services = reflection.get_services
        self.pool = descriptor_pool.DescriptorPool(reflection)

    def run(self, *arguments):
        return subprocess.run([*self.podman, *arguments], check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    def inspect(self, kind, name):
        answer = json.loads(self.run(kind, "inspect", name))
        return answer[0] if isinstance(answer, list) else answer

    def state(self):
        return self.inspect("container", "millrace-millraced")["State"]

    def check(self, name):
        request = health_pb2.HealthCheckRequest(service=name)
        return self.health.Check(request, timeout=5).status

    def wait_for_health(self, name, status, seconds):
        """Waits as a kubelet probes; returns how long it took."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            try:
                if self.check(name) == status:
                    return time.monotonic() - start
            except grpc.RpcError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"'{name}' is not {status} after {seconds} s")

    def method(self, service, name):
        """Returns a call of a method, and how to make its requests."""
        found = self.pool.FindServiceByName(service).FindMethodByName(name)
        request, response = (message_factory.GetMessageClass(t)
                             for t in (found.input_type, found.output_type))
        stub = (self.data.stream_stream if found.client_streaming
                else self.data.unary_stream)
        call = stub(f"/{service}/{name}",
                    request_serializer=request.SerializeToString,
                    response_deserializer=response.FromString)
        return call, lambda fields: json_format.ParseDict(fields, request())


class Session:
    """One stream of SessionService.Connect, with a writer's queue."""

    def __init__(self, pod):
        call, self.make = pod.method("millrace.v1.SessionService", "Connect")
        self.outbox = queue.Queue()
        self.events = call(iter(self.outbox.get, None), timeout=120)

    def send(self, **message):
        self.outbox.put(self.make(message))

    def until(self, event):
        """Reads events up to the first of this kind."""
        for response in self.events:
            if response.WhichOneof("event") == event:
                return getattr(response, event)
        raise AssertionError(f"the stream ended without {event}")


def becomes_ready(pod):
    pod.wait_for_health("readiness", SERVING, 60)
    assert pod.check("liveness") == SERVING
    assert pod.check("") == SERVING


def reflects_its_services(pod):
    missing = set(SERVICES) - set(pod.services())
    assert not missing, f"missing: {sorted(missing)}"


def hides_the_admin_service(pod):
    assert "millrace.v1.AdminService" not in pod.services()


def generates(pod):
    call, make = pod.method("millrace.v1.InferenceService", "Generate")
    request = make({"inputs": [{"text": "The capital of France is"}],
                    "stopping": {"max_tokens": 8,
                                 "ignore_end_of_turn": True}})
    ids = [i for r in call(request, timeout=60) for i in r.output.token_ids]
    assert len(ids) == 8, f"{len(ids)} tokens"


def shows_metrics(pod):
    url = f"http://{pod.address}:9090/metrics"
    text = urllib.request.urlopen(url, timeout=5).read().decode()
    assert "\nmillrace_requests_running{" in text, text[:200]


def runs_as_an_ordinary_user(pod):
    top = pod.run("top", "millrace-millraced", "huser", "args")
    assert "10001" in top, top


def checks_its_own_health(pod):
    pod.run("exec", "millrace-millraced", "/millraced", "healthcheck",
            "127.0.0.1:9003")


def drains(pod):
    """The stages of a drain, with --drain_delay=10s, seen from one long turn."""
    session = Session(pod)
    session.send(open={})
    session.until("opened")
    session.send(generate={"stopping": {"unlimited": {},
                                        "ignore_end_of_turn": True}})
    session.until("output")
    start = time.monotonic()
    pod.run("kill", "--signal", "TERM", "millrace-millraced")
    pod.wait_for_health("readiness", NOT_SERVING, 3)
    assert pod.check("liveness") == SERVING
    generates(pod)  # new work is still accepted before the delay is over
    session.until("go_away")
    delay = time.monotonic() - start
    assert delay > 9, f"go_away came {delay:.1f} s after SIGTERM"
    session.send(interrupt={})
    session.outbox.put(None)
    while pod.state()["Running"]:
        assert time.monotonic() - start < 60, "runs 60 s after SIGTERM"
        time.sleep(0.2)
    assert pod.state()["ExitCode"] == 0, pod.state()


def main(podman):
    pod = Pod(podman)
    failed = 0
    for case in [becomes_ready, reflects_its_services, hides_the_admin_service,
                 generates, shows_metrics, runs_as_an_ordinary_user,
                 checks_its_own_health, drains]:
        name = f"the pod {case.__name__.replace('_', ' ')}"
        try:
            case(pod)
            print("ok", name, flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1].lineno
            why = str(error).splitlines() or [type(error).__name__]
            print(f"not ok {name}: {why[0]} (line {where})", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
