"""Reads the files of a door again while it serves: market, names, tenants and keys change together, or nothing does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.command.bad_input import BadInput, one_line
from actors.errors.families import CallFailed
from actors.ledger.messages import OpenAccount, SetCap
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.serve.config import DoorConfig
    from actors.serve.door import Door
    from actors.serve.keys import KeyRing
    from runtime import ActorRef

ACCOUNT_TIMEOUT = 5.0
"""Seconds that the ledger has to open an account, or to change its cap."""


def check_keys(keys: KeyRing, config: DoorConfig, market: str) -> None:
    """Raise `BadInput` for a key of no tenant."""
    for tenant in sorted({key.tenant for key in keys.all()} - config.tenants.keys()):
        raise BadInput(f"--keys: a key belongs to {tenant!r}, of which {market} has no [tenants.{tenant}]")


async def set_caps(ledger: ActorRef[Any], before: Mapping[str, str | None], after: Mapping[str, str | None]) -> None:
    """Change the caps of tenants: an account keeps what was spent, and one of a new tenant is opened.

    Raises `BadInput` if the ledger refuses; the caps before it are changed then, which the next reading repeats.
    """
    for name, cap in after.items():
        if name in before and before[name] == cap:
            continue
        try:
            await _set_cap(ledger, name, cap, is_open=name in before)
        except (CallFailed, RuntimeFault) as error:
            raise BadInput(f"the cap of {name!r} was not changed: {one_line(str(error))}") from error


async def _set_cap(ledger: ActorRef[Any], name: str, cap: str | None, *, is_open: bool) -> None:
    if not is_open:
        try:
            await ledger.ask(OpenAccount(name=name, cap=cap), timeout=ACCOUNT_TIMEOUT)
        except CallFailed:
            is_open = True  # By a life before, of which the journal knows.
    if is_open:
        await ledger.ask(SetCap(name, cap, keeps_renewal=False), timeout=ACCOUNT_TIMEOUT)


def check_kind(door: Door, keys: KeyRing) -> None:
    """Raise `BadInput` if a door would be opened to all, or closed to all that come without a key."""
    if bool(keys) != bool(door.keys):
        raise BadInput("--keys: a door with keys is not opened to all, nor one without closed, while it serves")


def caps_of(config: DoorConfig) -> dict[str, str | None]:
    """Return the cap of each tenant."""
    return {name: tenant.budget for name, tenant in config.tenants.items()}
