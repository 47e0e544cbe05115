"""Reads the files of a door again while it serves: market, names, tenants and keys change together, or nothing does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.command.bad_input import BadInput, one_line
from actors.errors.families import CallFailed
from actors.ledger.messages import OpenAccount, SetCap
from actors.serve.key_file import line_of_key
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.serve.config import DoorConfig
    from actors.serve.door import Door
    from actors.serve.keys import KeyRing
    from runtime import ActorRef

ACCOUNT_TIMEOUT = 5.0
"""Seconds that the ledger has to open an account, or to change its cap."""


def check_keys(keys: KeyRing, config: DoorConfig, *, path: str | None, market: str) -> None:
    """Raise `BadInput` for a key of no tenant; `path` is the file of the keys, and `market` that of the tenants."""
    for key in keys.all():
        if path is not None and key.tenant not in config.tenants:
            place = f"--keys: {path}: line {line_of_key(path, key.id)}"
            raise BadInput(
                f"{place}: the key {key.id} belongs to {key.tenant!r}, of which {market} has no "
                f"[tenants.{key.tenant}]; write that table, or take the line out"
            )


class TenantCaps:
    """The caps of tenants, as the ledger was told of them: an account keeps what was spent under each."""

    def __init__(self, ledger: ActorRef[Any], caps: Mapping[str, str | None]) -> None:
        self._ledger = ledger
        self._known = set(caps)
        """The tenants whose accounts are open."""
        self._told: dict[str, str | None] = dict(caps)
        """Without those of which it is not known whether the ledger has taken them on."""

    async def change(self, caps: Mapping[str, str | None]) -> None:
        """Have the ledger take on these caps, and open the accounts of new tenants; raises `BadInput` if it refuses."""
        for name, cap in caps.items():
            if name in self._told and self._told[name] == cap:
                continue
            self._told.pop(name, None)
            try:
                await self._tell(name, cap)
            except (CallFailed, RuntimeFault) as error:
                raise BadInput(f"the cap of {name!r} was not changed: {one_line(str(error))}") from error
            self._told[name] = cap

    async def put_back(self, caps: Mapping[str, str | None]) -> str:
        """Have the ledger take on the caps of before; return what to say of those that it did not take on.

        The next reading repeats these.
        """
        left = list[str]()
        for name, cap in caps.items():
            try:
                await self.change({name: cap})
            except BadInput:
                left.append(name)
        if not left:
            return ""
        return f", and the caps of {', '.join(left)} may be those of the new file until it is read again"

    async def _tell(self, name: str, cap: str | None) -> None:
        if name not in self._known:
            try:
                await self._ledger.ask(OpenAccount(name=name, cap=cap), timeout=ACCOUNT_TIMEOUT)
            except CallFailed:
                self._known.add(name)  # By a life before, of which the journal knows.
            else:
                self._known.add(name)
                return
        await self._ledger.ask(SetCap(name, cap, keeps_renewal=False), timeout=ACCOUNT_TIMEOUT)

    def __repr__(self) -> str:
        return f"<TenantCaps {len(self._known)} accounts>"


def check_kind(door: Door, keys: KeyRing) -> None:
    """Raise `BadInput` if a door would be opened to all, or closed to all that come without a key."""
    if bool(keys) != bool(door.keys):
        raise BadInput(
            "--keys: a door with keys is not opened to all, nor one without closed, while it serves; restart needed"
        )


def caps_of(config: DoorConfig) -> dict[str, str | None]:
    """Return the cap of each tenant."""
    return {name: tenant.budget for name, tenant in config.tenants.items()}
