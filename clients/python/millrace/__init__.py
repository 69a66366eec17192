"""Endless sessions with a language model, from asyncio.

    import millrace

    async with millrace.connect("127.0.0.1:9000") as session:
        async for event in session.chat("Tell me of rivers"):
            print(event.text, end="", flush=True)

`millrace.v1` holds the generated messages and stubs of the whole service.
"""

from millrace.errors import MillraceError
from millrace.session import Event, Session, connect

__all__ = ["Event", "MillraceError", "Session", "connect"]
