"""The ledger of a cluster, which has one home: a keyed actor, whose journal only one activation writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.ledger.ledger import Ledger

if TYPE_CHECKING:
    from actors.ledger.opening import OpenJournal


def home_ledger(key: str, journal: OpenJournal) -> Ledger:
    """Return the ledger that a cluster has under a key: `cluster.ref(home_ledger, key="money")`.

    Its accounts are those of its journal; `OpenAccount` opens another, or gives one of an earlier run its cap. For
    other settings write a function of your own at the top of a module that returns `Ledger(config, journal=journal)`.
    """
    if not key:
        raise ValueError("key must not be empty: it names the ledger")
    return Ledger(journal=journal)
