"""What a fake server has charged, to whom, for what, and whether the answer arrived, in exact fractions."""

from __future__ import annotations

import asyncio
from collections import deque
from fractions import Fraction
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from actors.fake.prices import FakeUsage, micro_text

if TYPE_CHECKING:
    from collections.abc import Mapping


class BookedCall(msgspec.Struct, kw_only=True):
    """One call as the server saw it; `charged` is in dollars."""

    number: int
    request_id: str
    id: str = ""
    """The id of the generation, by which its cost is told."""
    key: str = ""
    tenant: str = ""
    model: str = ""
    form: str = ""
    status: int = 0
    """The HTTP status of the answer; 0 if none was sent."""
    attempt: int = 0
    """How often an equal request had come before."""
    usage: FakeUsage = FakeUsage()
    charged: Fraction = Fraction(0)
    answered: bool = False
    """Whether the whole answer was sent while the client was there."""
    cancelled: bool = False
    """Whether the client left before that."""
    idempotency_key: str = ""
    replayed: bool = False
    streamed: bool = False
    faults: tuple[str, ...] = ()
    began: float = 0.0
    ended: float | None = None
    """Seconds since the server started; None while the call is under way."""
    client_request_id: str = ""

    def told(self) -> dict[str, Any]:
        """Return the call as plain values."""
        fields = msgspec.structs.asdict(self)
        return fields | {
            "usage": msgspec.structs.asdict(self.usage),
            "charged": str(self.charged),
            "charged_micros": micro_text(self.charged),
        }


class BookTotals(msgspec.Struct):
    """The sums of one key and tenant."""

    calls: int = 0
    answered: int = 0
    charged_calls: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    charged: Fraction = Fraction(0)


class FakeBooks:
    """All calls of a server: a line each for the last `limit` of them, and sums of all."""

    def __init__(self, limit: int) -> None:
        self.lines: deque[BookedCall] = deque(maxlen=limit)
        self.by_caller: dict[tuple[str, str], BookTotals] = {}
        self.under_way = 0
        self.peak = 0
        self.calls = 0
        self.idle = asyncio.Event()
        """Set while no call is under way."""
        self.idle.set()

    def begin(self, call: BookedCall) -> None:
        """Note that a call is under way."""
        self.calls += 1
        self.lines.append(call)
        self.under_way += 1
        self.idle.clear()
        self.peak = max(self.peak, self.under_way)

    def end(self, call: BookedCall, *, now: float) -> None:
        """Add an ended call to the sums."""
        call.ended = now
        self.under_way -= 1
        if not self.under_way:
            self.idle.set()
        totals = self.by_caller.setdefault((call.key, call.tenant), BookTotals())
        totals.calls += 1
        totals.answered += call.answered and call.status == 200
        totals.cancelled += call.cancelled
        if call.charged:
            totals.charged_calls += 1
            totals.charged += call.charged
        totals.input_tokens += call.usage.all_input
        totals.output_tokens += call.usage.output

    @property
    def charged(self) -> Fraction:
        """The dollars charged to all callers."""
        return sum((one.charged for one in self.by_caller.values()), Fraction(0))

    def told(self, *, since: int = 0) -> dict[str, Any]:
        """Return the books as plain values: sums, and the lines of calls numbered from `since` up."""
        rows = [
            {"key": key, "tenant": tenant} | _totals(totals) for (key, tenant), totals in sorted(self.by_caller.items())
        ]
        whole = BookTotals()
        for one in self.by_caller.values():
            for name in BookTotals.__struct_fields__:
                setattr(whole, name, getattr(whole, name) + getattr(one, name))
        return {
            "total": _totals(whole),
            "under_way": self.under_way,
            "peak_under_way": self.peak,
            "by_caller": rows,
            "calls": [one.told() for one in self.lines if one.number >= since],
        }


def _totals(totals: BookTotals) -> dict[str, Any]:
    fields = msgspec.structs.asdict(totals)
    return fields | {"charged": str(totals.charged), "charged_micros": micro_text(totals.charged)}


def key_name(key: str, known: Mapping[str, str]) -> str | None:
    """Return the name under which a key is booked, never the key; None if it is not accepted.

    >>> key_name("sk-1", {"alice": "sk-1"}), key_name("sk-2", {"alice": "sk-1"}), key_name("", {})
    ('alice', None, '')
    """
    for name, own in known.items():
        if own == key:
            return name
    if known:
        return None
    return f"key-{blake2b(key.encode(), digest_size=4).hexdigest()}" if key else ""
