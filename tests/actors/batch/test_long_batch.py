"""A batch of a million items with a budget: each is accounted for, and memory stays flat."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from actors import Done, FunctionTransport, Listing, Market, Provider, ProviderCall, Supervisor, robust_batch
from runtime import ActorSystem
from tests.proofs import repeated

ITEMS = repeated(1_000_000, part=50)
WARM_UP = 2_000
"""Items after which everything that is made once has been made."""
MAX_GROWTH = 40.0
"""MB."""
SHOWN = 10
"""The items without an answer that are shown."""
STATM = Path("/proc/self/statm")
PAGE = 4096


async def answer(call: ProviderCall) -> object:
    return call.input


def megabytes() -> float:
    gc.collect()
    return int(STATM.read_text().split()[1]) * PAGE / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads the memory in use as Linux tells it")
async def test_a_million_items_with_a_budget_are_done_in_flat_memory():
    listing = Listing(
        provider=Provider(name="alder", services={"s"}, price="0.000001"),
        transport=lambda: FunctionTransport(answer, paid=True, idempotent="key", ends_when_cancelled=True),
        max_concurrency=1_000,
    )
    before = most = 0.0
    done, lost = 0, list[object]()
    async with ActorSystem("long", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        # The items are made as they are taken, and none is kept.
        source = (number for number in range(ITEMS))
        async with robust_batch(supervisor, source, service="s", max_concurrency=100, budget="10") as outcomes:
            async for outcome in outcomes:
                done += isinstance(outcome, Done)
                if not isinstance(outcome, Done) and len(lost) < SHOWN:
                    lost.append(outcome)
                if outcome.index == WARM_UP:
                    before = megabytes()
                elif outcome.index % 10_000 == 9_999:
                    most = max(most, megabytes())
    assert lost == []
    assert done == ITEMS
    assert outcomes.summary.cost == ITEMS
    assert 0 < before <= most <= before + MAX_GROWTH
