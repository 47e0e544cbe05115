"""How a fake server fails: faults by time window and share, drawn from seed, request content and try number. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from actors.fake.prices import FakePrice  # noqa: TC001 - msgspec reads annotations.

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.fake.draws import Draw


class FakeFault(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True, omit_defaults=True
):
    """When and whom a fault concerns.

    It lasts from `since` until `until`, in seconds since the plan is in force, and concerns the given `share` of the
    requests to `models` (empty: all). `tries` limits it to the first tries of equal requests.
    """

    since: float = 0.0
    until: float = math.inf
    share: float = 1.0
    models: tuple[str, ...] = ()
    tries: int | None = None

    def __post_init__(self) -> None:
        """Refuse shares that are none, and windows that end before they begin."""
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share of a fault: expected a number from 0 to 1, got {self.share}")
        if not self.since <= self.until:
            raise ValueError(f"a fault from {self.since} s cannot end at {self.until} s")

    def concerns(self, model: str, *, draw: Draw, number: int, now: float) -> bool:
        """Tell whether this fault, the plan's `number`-th, strikes a request."""
        return (
            self.since <= now < self.until
            and (not self.models or model in self.models)
            and (self.tries is None or draw.attempt < self.tries)
            and (self.share >= 1.0 or draw.share(f"fault {number}") < self.share)
        )


class FakeOutage(FakeFault, frozen=True, kw_only=True, tag="outage"):
    """Refuse with a status, uncharged; 0 closes the connection. With a `share` it is a brown-out.

    It strikes what charges nothing as well, such as the list of models, unless it concerns some `models` alone.
    """

    status: int = 503
    code: str | None = None
    message: str | None = None
    retry_after: float | None = None
    """Seconds, told in the way of the dialect."""


class FakeThrottle(FakeFault, frozen=True, kw_only=True, tag="throttle"):
    """Refuse with 429: a storm within a window, strays by a share."""

    retry_after: float | None = 1.0
    code: str | None = None
    """Such as "insufficient_quota"; None is the dialect's word for a rate limit."""


class FakeSlowness(FakeFault, frozen=True, kw_only=True, tag="slow"):
    """Multiply the latency, divide the token speed, and wait `extra` seconds more."""

    factor: float = 1.0
    extra: float = 0.0


class FakeStall(FakeFault, frozen=True, kw_only=True, tag="stall"):
    """Stay silent for `seconds`: before the first byte, or in mid-stream after `after_events` events."""

    at: Literal["first_byte", "mid_stream"] = "first_byte"
    seconds: float = 3600.0
    after_events: int = 3


class FakeCut(FakeFault, frozen=True, kw_only=True, tag="cut"):
    """Close the connection after `at_byte` bytes of the body, or after a `part` of it; drawn if both are None."""

    at_byte: int | None = None
    part: float | None = None


class FakeGarbage(FakeFault, frozen=True, kw_only=True, tag="garbage"):
    """Send a body that is none, with status 200, after the charge."""

    form: Literal["html", "half_json", "wrong_shape", "empty", "binary"] = "html"


class FakeLostReply(FakeFault, frozen=True, kw_only=True, tag="lost"):
    """Do and charge the work, then close the connection without a byte."""


class FakeErrorInside(FakeFault, frozen=True, kw_only=True, tag="error_inside"):
    """Answer with status 200 and an error in the body, uncharged."""

    status: int = 502
    """What the error in the body says."""


class FakeErrorEvent(FakeFault, frozen=True, kw_only=True, tag="error_event"):
    """End a stream by an error event after `after_events` events; what came until then is charged."""

    after_events: int = 3


class FakeNoUsage(FakeFault, frozen=True, kw_only=True, tag="no_usage"):
    """Leave usage out of the answer, or tell zeros if `empty`."""

    empty: bool = False


class FakePriceChange(FakeFault, frozen=True, kw_only=True, tag="price"):
    """Charge another price."""

    price: FakePrice


class FakeOddAnswer(FakeFault, frozen=True, kw_only=True, tag="answer"):
    """Answer in a way that callers do not wish for, and charge it."""

    answer: Literal["refusal", "content_filter", "empty", "not_json", "length"] = "refusal"


AnyFault: TypeAlias = (
    FakeOutage
    | FakeThrottle
    | FakeSlowness
    | FakeStall
    | FakeCut
    | FakeGarbage
    | FakeLostReply
    | FakeErrorInside
    | FakeErrorEvent
    | FakeNoUsage
    | FakePriceChange
    | FakeOddAnswer
)


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The faults of a server, in order: of two that decide the same, the first that strikes counts."""

    faults: tuple[AnyFault, ...] = ()
    seed: int | None = None
    """None is the seed of the server."""


class Struck(msgspec.Struct, frozen=True):
    """The faults that strike one request, at most one of each kind."""

    faults: tuple[AnyFault, ...] = ()

    def __iter__(self) -> Iterator[AnyFault]:
        return iter(self.faults)

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds of the faults, as the plan spells them."""
        return tuple(str(one.__struct_config__.tag) for one in self.faults)


def strike(plan: FaultPlan, model: str, *, draw: Draw, now: float) -> Struck:
    """Return the faults that strike a request; `now` counts from when the plan came in force.

    >>> from actors.fake.draws import Draw
    >>> plan = FaultPlan(faults=(FakeOutage(since=5.0, until=10.0), FakeNoUsage()))
    >>> [strike(plan, "m", draw=Draw(0, b"", 0), now=now).names for now in (0.0, 5.0)]
    [('no_usage',), ('outage', 'no_usage')]
    """
    if not plan.faults:
        return NOTHING
    found: dict[type, AnyFault] = {}
    for number, fault in enumerate(plan.faults):
        if type(fault) not in found and fault.concerns(model, draw=draw, number=number, now=now):
            found[type(fault)] = fault
    return Struck(tuple(found.values())) if found else NOTHING


NOTHING = Struck()
