"""Questions about a feed that never ends.

Cache policy: `sinks`, its window as long as questions may look back, here 180
tokens. The feed runs on for ever in constant memory. What has left the window
cannot be asked for, so the program says so and does not let the model guess.
"""

import argparse
import asyncio

import millrace

WINDOW = 180
POLICY = {"sinks": {"sink_tokens": 4, "window_tokens": WINDOW}}
FEED = """The bridge at Dover is closed for repairs.
A baby elephant was born in the zoo of Berlin.
The price of coffee rose to nine dollars.
Maria Silva won the marathon in Lisbon.
The night train to Vienna is two hours late.
A storm brought down the old oak in Richmond.
The museum in Oslo bought a painting of a blue horse.
Engineers found water under the desert of Atacama.
The ferry to Corsica runs on Fridays only.
A violin was left in a taxi in Chicago.
The mayor of Turin opened a library for children.
Snow fell in Cairo for the first time in a century.
The choir of Leipzig sings on the square at noon.""".splitlines()
QUESTIONS = {"When does the choir sing?": 12, "What did the mayor open?": 10,
             "Which bridge is closed?": 0}  # and the line that tells


async def follow(server):
    async with millrace.connect(
            server, format="FORMAT_PLAIN", cache_policy=POLICY,
            sampling={"temperature": 0},
            stopping={"max_tokens": 24, "stop_strings": ["\n"],
                      "ignore_end_of_turn": True}) as session:
        starts, position = [], 0  # of each line, and of the text so far
        for line in FEED:
            starts.append(position)
            position += (await session.append(f"{line}\n")).tokens
        for question, line in QUESTIONS.items():
            print(question, end="")
            if starts[line] < position - WINDOW:
                print(f" [forgotten: told at position {starts[line]}, in view "
                      f"from {position - WINDOW}]")
                continue
            await session.append(f"Question: {question}\nAnswer:")
            async for event in session.generate():
                print(event.text, end="", flush=True)
            print()
            separator = await session.append("\n")
            position = session.text_position + separator.tokens


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--server", default="127.0.0.1:9000")
    asyncio.run(follow(flags.parse_args().server))
