"""The configuration of a front door: its names, its tenants, and how much it takes from a client."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.serve.names import Alias  # noqa: TC001 - msgspec resolves the annotations below.
from actors.serve.tenants import Tenant  # noqa: TC001 - as above.
from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Iterator

MEGABYTE = 1024 * 1024


class DoorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a door serves; seconds, unless said otherwise.

    `aliases` are names of your own for models, and `tenants` are those whose keys are accepted. Without keys, only
    requests of this machine are served; `origins` are the web pages that may ask, such as "http://localhost:3000".

    A client that does not say how long it waits has `timeout`. A stream's status waits for its first piece, at most
    `commit_after`; from then on a comment is sent every `comment_every`. With `hold_first`, what comes in so many
    seconds from the first piece on is held back, so that a stream that breaks off meanwhile begins anew at another
    provider, unseen (None: nothing is held back). A client that takes no byte for `patience` has left. If its SDK says
    that it may try again by itself, its call goes on for `linger` after it has left, so that the next try joins it.

    At most `max_waiting` requests wait in the lines of their tenants for one of those under way to end.

    A body has at most `max_body` bytes, all bodies together `max_bodies`, and is read within `body_timeout`.
    """

    aliases: dict[str, Alias] = {}
    tenants: dict[str, Tenant] = {}
    origins: tuple[str, ...] = ()
    timeout: float = 600.0
    commit_after: float = 10.0
    comment_every: float = 10.0
    hold_first: float | None = None
    patience: float = 60.0
    linger: float = 5.0
    max_waiting: int = 10_000
    max_body: int = 20 * MEGABYTE
    max_bodies: int = 256 * MEGABYTE
    body_timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, seconds in self._times():
            if not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be > 0 seconds and finite, got {seconds!r:.100}")
        check_count("max_waiting", self.max_waiting, least=0, unit="request")
        check_count("max_body", self.max_body, unit="byte")
        check_count("max_bodies", self.max_bodies, unit="byte")
        if self.max_bodies < self.max_body:
            raise ValueError(f"max_bodies must be at least max_body, {self.max_body}, got {self.max_bodies}")

    def _times(self) -> Iterator[tuple[str, float]]:
        for name in ("timeout", "commit_after", "comment_every", "patience", "linger", "body_timeout"):
            yield name, getattr(self, name)
        if self.hold_first is not None:
            yield "hold_first", self.hold_first
