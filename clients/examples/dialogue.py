"""A conversation without end.

Cache policy: `sinks`, system prompt pinned. The prompt stays in view for ever,
so the model keeps to its task; of the talk it sees the newest 200 tokens, and
memory stays the same after a thousand turns. What has left is told, not hidden.
"""

import argparse
import asyncio

import millrace

SYSTEM_PROMPT = "You are a guide to the rivers of the world. Answer briefly."
QUESTIONS = [
    "Which river flows through Paris?",
    "And through London?",
    "Which one is the longest of all?",
    "What lives in it?",
    "How do people cross it?",
    "Which river would you visit first?",
]
POLICY = {"sinks": {"sink_tokens": 4, "window_tokens": 200,
                    "pin_system_prompt": True}}


async def talk(server):
    async with millrace.connect(
            server, system_prompt=SYSTEM_PROMPT, cache_policy=POLICY,
            sampling={"seed": 1}, stopping={"max_tokens": 80}) as session:
        pinned = len(session.opened.system_token_ids)
        forgotten = 0
        for question in QUESTIONS:
            print(f"\n> {question}")
            async for event in session.chat(question):
                print(event.text, end="", flush=True)
                if event.kind == "cache_update":
                    forgotten = event.message.total_evicted_tokens
            print(f"\n[{forgotten} tokens of the talk are forgotten]")
        usage = event.message.usage  # of "turn_finished", the last event
        print(f"\n{usage.text_position} tokens of text; in view are "
              f"{usage.visible_tokens}, the {pinned} of the system prompt "
              "among them.")


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--server", default="127.0.0.1:9000")
    asyncio.run(talk(flags.parse_args().server))


if __name__ == "__main__":
    main()
