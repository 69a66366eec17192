"""Negative log-likelihoods of a text under a cache policy, from a server."""

import asyncio
import hashlib
import json
import math
import sys

import grpc
import novel
from google.protobuf import json_format
from millrace.v1 import (cache_policy_pb2, common_pb2, inference_pb2,
                         inference_pb2_grpc)

PIECE_TOKENS = 1024  # of one message
LETTER = 504  # a token that is not special
PIECE_CHARACTERS = 2**18  # a word that is cut at its end has other tokens


def say(text):
    """One line of progress, overwritten by the next; only on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def parse_policy(text):
    """The proto of `name:option=value,...`, the form that flags take."""
    name, _, options = text.partition(":")
    arm = cache_policy_pb2.CachePolicy.DESCRIPTOR.fields_by_name.get(name)
    if arm is None:
        raise ValueError(f"no policy is called '{name}'")
    values = {}
    for pair in filter(None, options.split(",")):
        key, _, value = pair.partition("=")
        field = arm.message_type.fields_by_name.get(key)
        if field is not None and field.enum_type is not None:
            value = next((v.name for v in field.enum_type.values
                          if v.name.endswith(f"_{value.upper()}")), value)
        elif value in ("true", "false"):
            value = value == "true"
        values[key] = value
    return json_format.ParseDict({name: values},
                                 cache_policy_pb2.CachePolicy())


class Scorer:
    """Asks a server, once for each policy and text.

    Args:
      channel: to the server.
      keep: a folder for what was answered, so that a run that was cut off goes
        on where it was; None keeps nothing.
      tag: what else the answers depend on, such as the server's flags.
    """

    def __init__(self, channel, keep=None, tag=""):
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self._keep = keep
        self._tag = tag
        self._known = {}

    async def novel(self, skip, tokens):
        """Token ids of the novel, the first `skip` left out; perhaps fewer."""
        text = novel.text()
        ids = []
        for start in range(0, len(text), PIECE_CHARACTERS):
            if len(ids) >= skip + tokens:
                break
            answer = await self._stub.Tokenize(inference_pb2.TokenizeRequest(
                inputs=[common_pb2.Input(
                    text=text[start:start + PIECE_CHARACTERS])]))
            ids += answer.token_ids
        return ids[skip:skip + tokens]

    async def nlls(self, policy, ids):
        """By position, in nats; that of position 0 is NaN.

        Args:
          policy: the text form.
        """
        key = hashlib.sha256(json.dumps(
            [self._tag, policy, ids]).encode()).hexdigest()
        if key not in self._known:
            self._known[key] = await self._from_file(key, policy, ids)
        return self._known[key]

    async def takes(self, policy):
        """Whether the server has the policy and its backend can serve it."""
        try:
            await self._score(policy, [LETTER, LETTER])
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT,
                                grpc.StatusCode.FAILED_PRECONDITION):
                return False
            raise
        return True

    async def _from_file(self, key, policy, ids):
        if self._keep is None:
            return await self._score(policy, ids)
        path = self._keep / key
        if not path.exists():
            nlls = await self._score(policy, ids)
            self._keep.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(nlls), encoding="ascii")
        return json.loads(path.read_text(encoding="ascii"))

    async def _score(self, policy, ids):
        call = self._stub.Score()
        await call.write(inference_pb2.ScoreRequest(
            setup=inference_pb2.ScoreSetup(cache_policy=parse_policy(policy))))
        sending = asyncio.ensure_future(self._send(call, ids))
        nlls = [math.nan]
        try:
            async for response in call:
                say(f"{policy}, {len(nlls):,} of {len(ids):,} tokens")
                nlls.extend(-x for x in response.chunk.log_likelihoods)
                assert not response.finished.HasField("error"), response
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        assert len(nlls) == len(ids), (len(nlls), len(ids))
        return nlls

    async def _send(self, call, ids):
        for start in range(0, len(ids), PIECE_TOKENS):
            await call.write(inference_pb2.ScoreRequest(
                input=common_pb2.Input(token_ids=common_pb2.TokenIds(
                    ids=ids[start:start + PIECE_TOKENS]))))
        await call.done_writing()
