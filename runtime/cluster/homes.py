"""Where a keyed actor lives: one of the declared homes, the same for all that ask. Pure."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

ADOPTION = 1_000_000_000
"""What an adoption adds to the epoch of a journal: no count of activations at the home before comes so far."""


class Keyed(msgspec.Struct, array_like=True, frozen=True):
    """A keyed actor: the factory that makes it, and its key; with `home`, that node is its home by decree."""

    factory: str
    key: str
    home: str = ""

    @property
    def path(self) -> str:
        """How it is named for people, such as `Account/alice`."""
        return f"{self.factory.rpartition(':')[2]}/{self.key}"


def home_of(name: Keyed, homes: Sequence[str]) -> str:
    """Return the home of a keyed actor. If a home is added, only keys that move to it get another one.

    Source: D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on
    Networking 6(1), 1998: the home with the highest hash of both names.

    >>> home_of(Keyed("shop:Account", "alice"), ["north", "south"])
    'north'
    >>> home_of(Keyed("shop:Account", "alice", home="south"), ["north", "south"])
    'south'
    """
    return name.home or max(homes, key=lambda home: (_digest(f"{home}\0{name.factory}\0{name.key}"), home))


def journal_name(name: Keyed) -> str:
    """Return the name of the file in which a keyed actor has its journal.

    >>> journal_name(Keyed("shop:Account", "alice/17"))
    'Account-alice_17-451cd44a1f0d9aac.journal'
    """
    shown = re.sub(r"[^A-Za-z0-9]+", "_", name.key)[:40]
    kind = re.sub(r"[^A-Za-z0-9]+", "_", name.factory.rpartition(":")[2])
    return f"{kind}-{shown}-{_digest(name.factory + chr(0) + name.key).hex()}.journal"


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()
