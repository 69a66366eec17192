"""A summary that grows, sentence by sentence, while a long text goes by.

Cache policy: `sinks`, the task pinned as system prompt. The window holds one
part of the text, so a sentence is about that part: parts and sentences before
it have left. A book of any length costs the memory of one part.
"""

import argparse
import asyncio

import millrace

TASK = "You summarise a book, part by part, as it is read to you."
POLICY = {"sinks": {"sink_tokens": 4, "window_tokens": 350,
                    "pin_system_prompt": True}}
PART_WORDS = 200


def parts_of(path):
    with open(path, encoding="utf-8") as file:
        words = file.read().split()
    for start in range(0, len(words), PART_WORDS):
        yield " ".join(words[start:start + PART_WORDS])


async def summarise(server, path, most_parts):
    async with millrace.connect(
            server, system_prompt=TASK, cache_policy=POLICY,
            sampling={"temperature": 0},
            stopping={"max_tokens": 80}) as session:
        for number, part in enumerate(parts_of(path), start=1):
            if number > most_parts:
                break
            print(f"{number}. ", end="")
            async for event in session.chat(
                    f"{part}\n\nSummarise this in one sentence."):
                print(event.text, end="", flush=True)
            usage = event.message.usage  # of "turn_finished", the last event
            print(f"\n   [{usage.text_position} tokens of text, "
                  f"{usage.visible_tokens} in view]")


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--server", default="127.0.0.1:9000")
    flags.add_argument("--parts", type=int, default=4, help="read so many")
    flags.add_argument("file", help="the text")
    given = flags.parse_args()
    asyncio.run(summarise(given.server, given.file, given.parts))


if __name__ == "__main__":
    main()
