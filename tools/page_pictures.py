"""Draw the pictures of the live page in docs/pictures: `python tools/page_pictures.py`, which takes a minute.

It runs a market whose providers fail, throttle and answer slowly, and looks at its page in a headless Chromium.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from actors import FunctionTransport, Ledger, Listing, Market, Provider, Supervisor, Throttled, Transient, smart_request  # noqa: E402
from actors.dashboard.server import Dashboard  # noqa: E402
from actors.errors.families import CallFailed  # noqa: E402
from actors.ledger import OpenAccount  # noqa: E402
from runtime import ActorSystem  # noqa: E402
from tests.actors.dashboard.browser import browsing  # noqa: E402

SECONDS = 75.0
"""So long the market runs before it is looked at."""
ACCOUNTS = {"research": ("12", None), "planner": ("4", "research"), "reader": ("4", "research"), "support": ("9", None)}


class Troubles:
    """What each provider does at the moment."""

    def __init__(self) -> None:
        self.rng = random.Random(3)
        self.latency = {"alder": 0.25, "birch": 0.6, "cedar": 0.4, "douglas": 1.2}
        self.is_down = False

    def transport(self, name: str) -> FunctionTransport:
        async def call(_call: Any) -> str:
            await asyncio.sleep(self.latency[name] * self.rng.lognormvariate(0.0, 0.5))
            if name == "birch" and self.is_down:
                raise Transient("upstream connect error: the model is overloaded")
            if name == "cedar" and self.rng.random() < 0.06:
                raise Throttled("rate limit reached for requests", retry_after=2.0)
            if name == "douglas" and self.rng.random() < 0.03:
                raise Transient("the connection was closed before the answer", charged="held")
            return "done"

        return FunctionTransport(call, paid=True, idempotent="no")


async def ask(supervisor: Any, account: str) -> None:
    with suppress(CallFailed):  # The page tells of it.
        await smart_request(supervisor, service="chat", input="hello", account=account, timeout=20.0)


async def load(supervisor: Any, troubles: Troubles) -> None:
    """Ask some times a second, for ever."""
    async with asyncio.TaskGroup() as group:
        while True:
            for account in ("planner", "reader", "support"):
                if troubles.rng.random() < 0.7:
                    group.create_task(ask(supervisor, account))
            await asyncio.sleep(0.25)


def listings_of(troubles: Troubles) -> list[Listing]:
    return [
        Listing(
            provider=Provider(name=name, services={"chat"}, price=price),
            transport=lambda name=name: troubles.transport(name),
            max_concurrency=8,
        )
        for name, price in (("alder", "0.02"), ("birch", "0.015"), ("cedar", "0.01"), ("douglas", "0.03"))
    ]


async def main() -> None:
    troubles = Troubles()
    listings = listings_of(troubles)
    async with ActorSystem("agents", log=False) as system:
        ledger = system.spawn(Ledger, name="ledger")
        for name, (cap, parent) in ACCOUNTS.items():
            await ledger.ask(OpenAccount(name=name, cap=cap, parent=parent), timeout=5.0)
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings), ledger=ledger), name="supervisor")
        loading = asyncio.create_task(load(supervisor, troubles))
        async with Dashboard(system, may_act=True) as page, browsing() as browser:
            await asyncio.sleep(SECONDS)
            troubles.is_down = True
            for _ in range(8):
                await ask(supervisor, "support")
            await browser.open(page.url)
            await browser.until("document.querySelectorAll('#providers .card').length")
            await asyncio.sleep(6.0)
            folder = ROOT / "docs" / "pictures"
            for name, width, height, dark in (
                ("page-light", 1280, 900, False),
                ("page-dark", 1280, 900, True),
                ("page-phone", 390, 844, False),
            ):
                await browser.size(width, height, dark=dark)
                await browser.picture(name, folder)
        loading.cancel()
        await asyncio.wait({loading})


if __name__ == "__main__":
    asyncio.run(main())
