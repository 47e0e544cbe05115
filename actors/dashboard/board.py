"""The tables of a view as they are kept for all viewers, and the update that each of them is due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from actors.dashboard.table import ENCODER, START, Version, ViewTable
from actors.dashboard.view import (
    AccountRow,
    AlertRow,
    ChartRow,
    DeadLetterRow,
    EventRow,
    HeldRow,
    ProviderRow,
    RequestRow,
    Seen,
    TotalRow,
    TraceRow,
)

if TYPE_CHECKING:
    from actors.dashboard.view import ActorPage

MAX_UPDATE = 60_000
"""Bytes of the rows of one update; with the rest of it, that stays below 64 KB."""
MAX_ACCOUNTS, MAX_PROVIDERS, MAX_REQUESTS, MAX_HELD = 1_000, 500, 200, 200


class Board:
    """All tables, the ones that concern a person most in front: those are sent first if not all has room."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        version = Version()
        self.totals: ViewTable[TotalRow] = ViewTable(version, most=1)
        self.alerts: ViewTable[AlertRow] = ViewTable(version, most=200)
        self.providers: ViewTable[ProviderRow] = ViewTable(version, most=MAX_PROVIDERS)
        self.accounts: ViewTable[AccountRow] = ViewTable(version, most=MAX_ACCOUNTS)
        self.held: ViewTable[HeldRow] = ViewTable(version, most=MAX_HELD)
        self.requests: ViewTable[RequestRow] = ViewTable(version, most=MAX_REQUESTS)
        self.events: ViewTable[EventRow] = ViewTable(version, most=300)
        self.dead_letters: ViewTable[DeadLetterRow] = ViewTable(version, most=200)
        self.traces: ViewTable[TraceRow] = ViewTable(version, most=200)
        self.charts: ViewTable[ChartRow] = ViewTable(version, most=MAX_PROVIDERS + 1)
        self._tables: dict[str, ViewTable[Any]] = {
            "totals": self.totals,
            "alerts": self.alerts,
            "providers": self.providers,
            "accounts": self.accounts,
            "held": self.held,
            "requests": self.requests,
            "events": self.events,
            "dead_letters": self.dead_letters,
            "traces": self.traces,
            "charts": self.charts,
        }

    def update(
        self, seen: Seen, *, now: float, actors: ActorPage | None = None, trace: TraceRow | None = None
    ) -> bytes | None:
        """Return what has changed for a viewer, as the JSON of an `Update`; None if nothing has."""
        is_known = seen.epoch == self.epoch
        room = MAX_UPDATE
        told: dict[str, object] = {}
        actors_sent, trace_sent = seen.actors if is_known else 0, seen.trace if is_known else 0
        for name, looked_at, sent in (("actors", actors, actors_sent), ("trace", trace, trace_sent)):
            if looked_at is None:
                continue
            encoded = ENCODER.encode(looked_at)
            digest = hash(encoded) & 0xFFFF_FFFF
            if digest != sent:
                told[name] = msgspec.Raw(encoded)
                room -= len(encoded)
                actors_sent, trace_sent = (digest, trace_sent) if name == "actors" else (actors_sent, digest)
        versions = dict(seen.versions) if is_known else {}
        is_more = False
        for name, table in self._tables.items():
            delta = table.since(versions.get(name, START), room=max(0, room))
            if delta is None:
                continue
            room -= delta.size
            is_more = is_more or delta.is_cut
            versions[name] = delta.seen
            if delta.put or delta.gone or delta.is_all:
                told[name] = {"put": delta.put, "gone": delta.gone, "is_all": delta.is_all}
        if not told:
            return None
        place = Seen(epoch=self.epoch, versions=versions, actors=actors_sent, trace=trace_sent)
        return ENCODER.encode({"seen": place, "now": now, "at": time.time(), "is_more": is_more, **told})
