"""Other actor libraries, where they are installed (extra `bench`): the same work, as their own manuals write it."""

from __future__ import annotations

import importlib.util
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TELLS = 20_000
ASKS = 5_000


async def pykka_tell() -> float:
    import pykka  # noqa: PLC0415 - an extra.

    class Counter(pykka.ThreadingActor):
        count = 0

        def on_receive(self, message: Any) -> int:
            self.count += 1
            return self.count

    ref = Counter.start()
    begin = perf_counter()
    for _ in range(TELLS):
        ref.tell(None)
    assert ref.ask(None) == TELLS + 1
    rate = TELLS / (perf_counter() - begin)
    ref.stop()
    return rate


async def pykka_ask() -> float:
    import pykka  # noqa: PLC0415 - an extra.

    class Counter(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> int:
            return 1

    ref = Counter.start()
    begin = perf_counter()
    for _ in range(ASKS):
        ref.ask(None)
    rate = ASKS / (perf_counter() - begin)
    ref.stop()
    return rate


async def with_xoscar(work: Callable[[Any], Awaitable[float]]) -> float:
    import xoscar  # noqa: PLC0415 - an extra.

    class Counter(xoscar.Actor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def tick(self) -> int:
            self.count += 1
            return self.count

    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
    async with pool:
        return await work(await xoscar.create_actor(Counter, address=pool.external_address, uid="counter"))


async def xoscar_tell() -> float:
    async def work(ref: Any) -> float:
        begin = perf_counter()
        for _ in range(TELLS):
            await ref.tick.tell()
        assert await ref.tick() == TELLS + 1
        return TELLS / (perf_counter() - begin)

    return await with_xoscar(work)


async def xoscar_ask() -> float:
    async def work(ref: Any) -> float:
        begin = perf_counter()
        for _ in range(ASKS):
            await ref.tick()
        return ASKS / (perf_counter() - begin)

    return await with_xoscar(work)


PEERS = {
    "pykka": {"tell": pykka_tell, "ask": pykka_ask},
    "xoscar": {"tell": xoscar_tell, "ask": xoscar_ask},
}


def installed() -> dict[str, dict[str, Callable[[], Awaitable[float]]]]:
    """Return the measures of those peers that can be imported here."""
    return {name: measures for name, measures in PEERS.items() if importlib.util.find_spec(name)}
