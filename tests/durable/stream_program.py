"""Reads one stream under a key, and says each piece and the end as they come; see test_killed_streams.py."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from actors import Market, Supervisor
from actors.errors import CallFailed, StreamCut
from actors.ledger import GetStatement, Ledger
from actors.models import chat_stream, compatible
from actors.tariffs import Tariff
from runtime import ActorSystem


def say(**told: object) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


async def main(url: str, journal: str, key: str) -> None:
    listing = compatible("m", base_url=url, tariff=Tariff(input="1", output="4"), on_cut="stops", paid=True)
    async with ActorSystem("life", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=journal), name="money")
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing]), ledger=ledger))
        stream = chat_stream(supervisor, model="m", messages=key, max_tokens=40, idempotency_key=key)
        try:
            async with stream:
                async for _ in stream:
                    say(piece=stream.text)
            say(text=stream.result.text, replayed=stream.result.result.replayed)
        except StreamCut as cut:
            say(cut=cut.text, cost=int(cut.cost), may_cost=int(cut.may_cost))
        except CallFailed as failure:
            say(failure=repr(failure))
        statement = await ledger.ask(GetStatement(), timeout=5.0)
        say(settled=int(statement.settled), estimated=int(statement.estimated), held=int(statement.held))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
