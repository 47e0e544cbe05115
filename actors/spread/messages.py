"""What a program and the deputies that serve its requests on other nodes tell each other."""

from __future__ import annotations

from typing import Any

import msgspec

from actors import events
from actors.supervisor.messages import SmartRequest, SmartResult, TargetStatus  # noqa: TC001 - msgspec needs them.
from runtime import ActorRef, Event, Request

FORWARDED: tuple[type[Event], ...] = (
    events.CallEnded,
    events.Retried,
    events.Rerouted,
    events.Hedged,
    events.RequestEnded,
    events.BreakerOpened,
    events.BreakerHalfOpened,
    events.BreakerClosed,
    events.HealthChecked,
    events.Reconciled,
    events.CostUnreadable,
    events.DearAnswer,
    events.ProviderLeft,
    events.ProviderBack,
)
"""The facts that a node tells; those of the money are the ledger's, which is at home."""
FACTS: dict[str, msgspec.msgpack.Decoder[Event]] = {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in FORWARDED}
_encode = msgspec.msgpack.Encoder().encode


class SeatTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a deputy is told of the program whose requests it serves.

    `requests` is the actor that gives them, with which the deputy ends; `ledger` has all the money. `quotas` are the
    owners of the limits. The deputy has the `seat` of that number, from 0, of so many `seats`.
    """

    requests: ActorRef
    ledger: ActorRef
    quotas: dict[str, ActorRef]
    seat: int
    seats: int


class Fact(msgspec.Struct, array_like=True, frozen=True):
    """An event as it travels, by the name of its class, which is one of `FORWARDED`."""

    kind: str
    body: bytes

    @classmethod
    def of(cls, event: Event) -> Fact:
        """Return an event as a fact."""
        return cls(type(event).__name__, _encode(event))

    def event(self) -> Event:
        """Return the event. Raises `msgspec.MsgspecError`, and KeyError for one that is not forwarded."""
        return FACTS[self.kind].decode(self.body)


class ServedAway(msgspec.Struct, frozen=True, kw_only=True):
    """How a request has ended on another node: with a result, or with an error as bytes.

    `facts` are the events of the request, and of its providers since the last answer; `now` is the node's loop time.
    """

    result: SmartResult | None = None
    error: bytes | None = None
    facts: tuple[Fact, ...] = ()
    now: float = 0.0


class ServeAway(Request[ServedAway], frozen=True):
    """Have a request served on the node of the actor that is asked; it has a `request_id`."""

    request: SmartRequest


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The providers as a node sees them, at its loop time `now`."""

    targets: tuple[TargetStatus, ...]
    now: float


class GetNodeStatus(Request[NodeStatus], frozen=True):
    """Ask a deputy for the state of every provider, as far as it calls them."""

    check_health: bool = False


class GetNodes(Request[tuple[str, ...]], frozen=True):
    """Ask on which nodes requests are served now; answered once it is known of each whether it can serve.

    Refused with `Permanent`, which says why, if no node can.
    """


def failure_of(answer: Any) -> Exception:
    """Return what was read as an error; anything else is one too."""
    return answer if isinstance(answer, Exception) else TypeError(f"no error came from the node, but {answer!r:.100}")
