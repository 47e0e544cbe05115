"""Asks for one response of the background under one key, and says what it was answered; see test_taken_up.py.

Without a key it asks for nothing, and ends once no money is held.
"""

from __future__ import annotations

import asyncio
import json
import sys

from actors import Market, Supervisor, smart_request
from actors.events import Reconciled
from actors.ledger import GetStatement, Ledger
from actors.model_calls import ModelRequest
from actors.models import compatible
from actors.tariffs import Tariff
from runtime import ActorSystem


async def main(url: str, journal: str, key: str = "") -> None:
    listing = compatible("m", preset="openai", base_url=url, api_key="k", tariff=Tariff(input="1", output="4"))
    asked = ModelRequest(form="responses", body={"input": key, "background": True, "max_output_tokens": 40})
    async with ActorSystem("life", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=journal), name="money")
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing]), ledger=ledger))
        settled, output = asyncio.Event(), None
        system.events.subscribe(Reconciled, lambda _: settled.set())
        if key:
            result = await smart_request(supervisor, service="m", input=asked, idempotency_key=key, timeout=60.0)
            output = result.output
        else:
            async with asyncio.timeout(60.0):
                await settled.wait()
        statement = await ledger.ask(GetStatement(), timeout=5.0)
    told = {"output": output, "settled": int(statement.settled), "held": int(statement.held)}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
