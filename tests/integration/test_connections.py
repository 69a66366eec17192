"""Silence, age and number of connections and streams."""

import asyncio

import grpc
from millrace.v1 import control_pb2, control_pb2_grpc

import raw_session
from raw_session import GREEDY, PLAIN, RawSession, budget, sinks


def connected(server):
    return grpc.aio.insecure_channel(server.address,
                                     options=raw_session.CHANNEL_OPTIONS)


class Heartbeats:
    """Counts what a session does not keep."""

    def __init__(self, session):
        self.numbers = []
        self._see = session.checker.see
        session.checker.see = self.see

    def see(self, response):
        if response.HasField("heartbeat"):
            self.numbers.append(response.sequence_number)
        self._see(response)


async def test_silence_is_broken_by_heartbeats(start_server):
    server = start_server("--heartbeat_interval=100ms")
    async with connected(server) as channel:
        session = RawSession(channel)
        heartbeats = Heartbeats(session)
        await session.open(format=PLAIN, sampling=GREEDY)
        await session.until(lambda: len(heartbeats.numbers) >= 3)
        assert set(heartbeats.numbers) == {0}  # outside the order
        seq = await session.append("On",
                                   then_generate={"stopping": budget(3)})
        await session.turn(seq)
        await session.close()


async def test_a_stream_that_never_opens_is_ended(start_server):
    server = start_server("--open_timeout=200ms")
    async with connected(server) as channel:
        session = RawSession(channel)
        session._start_stream()
        failure = await session.stream_end()
        assert (failure.code, failure.reason) == ("FAILED_PRECONDITION",
                                                  "NOT_OPEN")


async def test_a_session_outlives_the_age_of_its_connection(start_server):
    """The connection takes no new calls; what runs on it goes on."""
    server = start_server("--grpc_max_connection_age=1s")
    async with connected(server) as channel:
        session = RawSession(channel)
        await session.open(format=PLAIN, sampling=GREEDY,
                           cache_policy=sinks(4, 60))
        await session.append("The river")
        states = set()

        async def watch():
            state = channel.get_state()
            while True:
                states.add(state)
                await channel.wait_for_state_change(state)
                state = channel.get_state()

        watcher = asyncio.create_task(watch())
        # Until the client has been told to connect anew.
        while grpc.ChannelConnectivity.IDLE not in states:
            seq = await session.generate(stopping=budget(20))
            await session.turn(seq)
        watcher.cancel()
        seq = await session.generate(stopping=budget(20))
        await session.turn(seq)
        # New calls find a new connection.
        control = control_pb2_grpc.ControlServiceStub(channel)
        load = await control.GetLoad(control_pb2.GetLoadRequest())
        assert len(load.sessions) == 1
        await session.close()


async def test_one_connection_carries_all_sessions(server, sessions):
    """More streams than gRPC's usual 100: none waits without an error."""
    async with connected(server) as channel:
        opened = [await sessions(channel, format=PLAIN, rollback_tokens=0,
                                 cache_policy=sinks(4, 20))
                  for _ in range(120)]
        seq = await opened[-1].append("On",
                                      then_generate={"stopping": budget(2)})
        await opened[-1].turn(seq)
