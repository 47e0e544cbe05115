"""An hour of brown-outs raises and clears each alert once for each of them, and a webhook hears of each turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors import CallFailed, Market, Supervisor, smart_request
from actors.events import AlertCleared, AlertRaised
from actors.market import Webhook
from actors.monitor import DEFAULT_RULES, Monitor, MonitorConfig, SuccessRateRule
from actors.simulation import BrownOut, SimulatedProvider
from actors.webhooks import WebhookSender
from runtime import ActorSystem
from runtime.simulation import explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from runtime.simulation import Simulation

EVERY = 600.0
"""Seconds from one brown-out to the next."""
BROWN_OUTS = 6
SEEDS = range(repeated(20, part=20))
SECRET = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="  # noqa: S105 - of a webhook that is not there.
RULES = (*DEFAULT_RULES, SuccessRateRule(name="provider", scope="provider"))


class Response:
    def __init__(self, status: int) -> None:
        self.status = status

    def close(self) -> None:
        pass


class UnreliableReceiver:
    """Takes half of what it is sent, and of that it answers half too late."""

    def __init__(self, dice: Any) -> None:
        self.dice = dice
        self.heard = Counter[str]()

    async def send(self, request: Any, progress: Any) -> Any:
        luck = self.dice.random()
        if luck > 0.5:
            self.heard[request.headers["webhook-id"]] += 1
        if 0.25 < luck < 0.75:
            await asyncio.Event().wait()
        return Response(200 if luck > 0.5 else 503)

    async def aclose(self) -> None:
        pass


async def an_hour_of_brown_outs(simulation: Simulation) -> None:
    dice = simulation.random
    providers = [
        SimulatedProvider(simulation, name, services={"s"}) for name in ("alder", "birch")[: dice.choice((1, 2))]
    ]
    # From then on there are enough calls for any rate; a brown-out ends so long before the next that its alerts can.
    begins = [EVERY * number + dice.uniform(60.0, 120.0) for number in range(BROWN_OUTS)]
    rate, pause = dice.uniform(0.3, 1.0), dice.choice((1.5, 2.5))
    lasting = [dice.uniform(30.0, 200.0) for _ in begins]
    for at, lasts in zip(begins, lasting, strict=True):
        simulation.inject(BrownOut(provider="alder", at=at, lasts=lasts, rate=rate))
    turns: dict[tuple[str, str], list[tuple[str, int]]] = {}
    receiver = UnreliableReceiver(dice)

    def note(alert: AlertRaised | AlertCleared) -> None:
        number = sum(at <= simulation.now() for at in begins)
        turns.setdefault((alert.rule, alert.subject), []).append((type(alert).__name__, number))

    async with ActorSystem("hour", log=False) as system:
        for kind in (AlertRaised, AlertCleared):
            system.events.subscribe(kind, note)
        webhook = Webhook(url="https://alerts.example.com/", secret=SECRET)
        system.spawn(lambda: WebhookSender(webhook, make_wire=lambda: receiver))
        system.spawn(lambda: Monitor(MonitorConfig(rules=RULES)))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[one.listing() for one in providers])))

        async def ask() -> None:
            with suppress(CallFailed):
                await smart_request(supervisor, service="s", input="x", timeout=20.0)

        async with asyncio.TaskGroup() as group:
            while simulation.now() < EVERY * BROWN_OUTS:
                group.create_task(ask())
                await asyncio.sleep(pause)
        await asyncio.sleep(7200.0)  # A receiver that takes a quarter needs long for the last alerts.
    for told in turns.values():
        assert [name for name, _ in told] == ["AlertRaised", "AlertCleared"] * (len(told) // 2)
        assert [number for _, number in told[::2]] == [number for _, number in told[1::2]]
        assert len({number for _, number in told}) == len(told) // 2, told
    # A provider beside another one may hardly be called any more, and a short brown-out may hit few calls.
    sure = sum(lasts * rate / pause >= 15 for lasts in lasting) if len(providers) == 1 else 1
    assert sure <= len(turns["provider", "alder"]) // 2 <= BROWN_OUTS
    assert len(receiver.heard) == sum(map(len, turns.values()))


def test_an_hour_of_brown_outs_raises_and_clears_each_alert_once_for_each() -> None:
    assert explore(an_hour_of_brown_outs, seeds=SEEDS).runs == len(SEEDS)
