"""What is asked of the watcher of a system, and what it publishes of the acts of its operators."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import msgspec

from actors.dashboard.view import Seen
from actors.money import OptionalAmountField, amount_default, take_amount
from actors.validation import check_text
from runtime import Event, Request

ActKind: TypeAlias = Literal["isolate", "release", "resolve", "pause", "resume", "stop", "restart"]
"""What an operator can do: to a provider; to a held call; to an account; to an actor."""
ACT_KINDS: tuple[str, ...] = get_args(ActKind)
MAX_OPENED, MAX_ROWS = 200, 200


class Viewport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a viewer looks at beside the tables: part of the tree of actors, and the way of one request.

    Of the tree, `most` lines from line `first` on (0: it is not looked at), with the children of the actors at the
    `opened` paths.
    """

    opened: tuple[str, ...] = ()
    first: int = 0
    most: int = 0
    request: str | None = None

    def __post_init__(self) -> None:
        if len(self.opened) > MAX_OPENED or not 0 <= self.most <= MAX_ROWS or not 0 <= self.first <= 10_000_000:
            raise ValueError(
                f"at most {MAX_OPENED} actors are opened and {MAX_ROWS} lines looked at, got {self!r:.200}"
            )


class GetUpdate(Request[bytes | None], frozen=True, kw_only=True):
    """Ask for the JSON of an `Update`: what has changed since what was `seen`; None if nothing has."""

    seen: Seen = Seen()
    look: Viewport = Viewport()


class Act(Request[str], frozen=True, kw_only=True):
    """Do something to the running system for an operator, and record that; answered with what was done, in words.

    `subject` is the key of the row of a provider, a held call or an account; or the path of an actor. A held call is
    resolved as `charged` or not, at its `cost` in dollars as text (None: what is held). Refused with `Permanent` for
    what is not there.
    """

    who: str
    kind: ActKind
    subject: str
    charged: Literal["yes", "no"] | None = None
    cost: OptionalAmountField = amount_default(None)

    def __post_init__(self) -> None:
        check_text("who", self.who)
        check_text("subject", self.subject)
        if self.kind not in ACT_KINDS:
            raise ValueError(f"kind must be one of {', '.join(ACT_KINDS)}, got {self.kind!r:.100}")
        if self.cost is not None:
            take_amount(self, "cost")
        if (self.kind == "resolve") is not (self.charged is not None):
            raise ValueError('charged ("yes" or "no") says what became of a held call, and of nothing else')


class AskedAct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An `Act` as a viewer sends it: who it is, is known otherwise."""

    kind: ActKind
    subject: str
    charged: str | None = None
    cost: str | None = None


def act_of(asked: AskedAct, *, who: str) -> Act:
    """Return the act that a viewer asks for. Raises ValueError for one that makes no sense."""
    try:
        return msgspec.convert({**msgspec.structs.asdict(asked), "who": who}, Act)
    except TypeError as error:
        raise ValueError(str(error)) from error


class ActDone(Event, frozen=True, kw_only=True):
    """An operator has done something, or tried to: `outcome` says in words what came of it. `at` is since 1970."""

    who: str
    kind: str
    subject: str
    outcome: str
    at: float
