"""Another market, other names, tenants and keys for a door that serves: all between two requests, or none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.errors.families import Permanent
from actors.serve.names import names_of
from actors.serve.visitors import not_let_in
from actors.supervisor.messages import ReplaceMarket
from runtime import ActorCrashed, ActorStopped, AskTimeout, MailboxFull, SystemClosed, Unhandled, WrongThread

if TYPE_CHECKING:
    from actors.market.market import Market
    from actors.serve.app import DoorApp
    from actors.serve.config import DoorConfig
    from actors.serve.door import Door
    from actors.serve.keys import KeyRing
    from actors.serve.names import Names
    from actors.supervisor.messages import MarketChange

NEVER_ASKED = (ActorStopped, MailboxFull, SystemClosed, Unhandled, WrongThread)
"""The errors after which a supervisor has not come to the question."""
NOT_SWITCHED = (Permanent, *NEVER_ASKED)
"""The errors after which a door and its supervisor go by the market before."""
SWITCH_TIMEOUT = 30.0
"""Seconds that the supervisor has to have the caps changed at its ledger."""


async def replace_market(
    app: DoorApp, market: Market, config: DoorConfig | None = None, *, keys: KeyRing | None = None
) -> MarketChange:
    """Have an application that `app` made, and its supervisor, go by another market from the next request on.

    `config` and `keys` take the place of those before (None: these stay). The accounts of new tenants have to be open.
    What is under way ends as it began, but for the requests of a key that was revoked at once (`ApiKey.cuts`).

    Raises ValueError if a name of the market or of the aliases has two meanings, `Permanent` for a market that offers
    nothing, and a `RuntimeFault` of `NEVER_ASKED` if the supervisor cannot be reached; then nothing has changed. With
    any other error it has: with `LedgerDown`, each cap is changed before it is drawn on.
    """
    door = app.door
    if keys is not None and bool(keys) != bool(door.keys):
        raise ValueError("a door with keys is not opened to all, nor one without closed, while it serves")
    config = door.config if config is None else config
    names = names_of(market, config.aliases)
    return await switch(door, market, names, config, door.keys if keys is None else keys)


async def switch(door: Door, market: Market, names: Names, config: DoorConfig, keys: KeyRing) -> MarketChange:
    """Have a door and its supervisor go by another market in one turn of the loop; raises as `replace_market` does.

    A caller that is cancelled waits all the same until both go by the same.
    """
    switching = asyncio.create_task(_switch(door, market, names, config, keys))
    was_cancelled = False
    while not switching.done():
        try:
            await asyncio.wait({switching})
        except asyncio.CancelledError:
            was_cancelled = True
    if was_cancelled:
        switching.exception()
        raise asyncio.CancelledError
    return switching.result()


async def _switch(door: Door, market: Market, names: Names, config: DoorConfig, keys: KeyRing) -> MarketChange:
    before = door.names, door.config, door.keys
    # Asked in the same turn, the supervisor has its own before any request has one.
    asking = door.supervisor.ask(ReplaceMarket(market), timeout=SWITCH_TIMEOUT)
    go_by(door, names, config, keys)
    try:
        try:
            change = await asking
        except (AskTimeout, ActorCrashed):
            # How far it came is not known; asked again, it takes up the market if it had not.
            change = await door.supervisor.ask(ReplaceMarket(market), timeout=SWITCH_TIMEOUT)
    except NOT_SWITCHED:
        go_by(door, *before)
        raise
    except BaseException:
        cut_revoked(door)  # The door goes by its new keys all the same.
        raise
    cut_revoked(door)
    return change


def go_by(door: Door, names: Names, config: DoorConfig, keys: KeyRing) -> None:
    """Have a door go by other names, tenants and keys from the next request on."""
    door.names, door.config, door.keys = names, config, keys
    door.room.config = config
    door.places.bound.max_waiting = config.max_waiting
    door.places.look_again()


def cut_revoked(door: Door) -> None:
    """End what is under way for the keys that were revoked at once; the clients are told."""
    now = door.clock()
    cut = {key.id for key in door.keys.all() if key.cuts and key.refusal(now) is not None}
    if cut:
        door.end_all(not_let_in("the key was revoked"), of_keys=cut)
