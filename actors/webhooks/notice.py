"""What is told of an alert: an id for each turn of an incident, the body, and the signature. Pure.

The headers and the signature are those of Standard Webhooks, which receivers have libraries for
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence  # noqa: TC003 - inspect.signature evaluates it.
from datetime import UTC, datetime

import msgspec

from actors.events import AlertCleared, AlertRaised
from actors.market.webhook import key_of

ID, TIME, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = 300.0
"""Seconds by which the time of a delivery may differ from the receiver's: five minutes, as in the libraries."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of an incident: it was raised, or cleared. `id` stays the same over all attempts.

    `at` is in seconds since 1970, and `noted` in loop time.

    What a provider said is no part of it, because a provider may quote prompts.
    """

    id: str
    incident: str
    turn: str
    rule: str
    subject: str
    value: float | None
    threshold: float | None = None
    lasted: float | None = None
    at: float
    noted: float = 0.0

    @property
    def body(self) -> bytes:
        """What is posted, as JSON."""
        told = {
            "incident": self.incident,
            "rule": self.rule,
            "subject": self.subject,
            "value": self.value,
            "threshold": self.threshold,
            "lasted": self.lasted,
        }
        when = datetime.fromtimestamp(self.at, tz=UTC).isoformat()
        return msgspec.json.encode({"type": f"alert.{self.turn}", "timestamp": when, "data": told})


class Incidents(msgspec.Struct, frozen=True):
    """The incidents that are raised now, each with its id, by the rule and the subject. Immutable."""

    raised: dict[tuple[str, str], str] = {}

    def turn(self, event: AlertRaised | AlertCleared, *, incident: str, at: float) -> tuple[Incidents, Notice | None]:
        """Return the incidents after an event, and what is told of it; nothing of an event that changes nothing.

        `incident` is the id that a new incident gets.

        >>> event = AlertCleared(rule="latency", subject="all", value=None, lasted=5.0)
        >>> Incidents().turn(event, incident="i1", at=0.0)
        (Incidents(raised={}), None)
        """
        key = (event.rule, event.subject)
        known = self.raised.get(key)
        if isinstance(event, AlertRaised):
            if known is not None:
                return self, None
            notice = _notice(event, incident, at, threshold=event.threshold)
            return Incidents({**self.raised, key: incident}), notice
        if known is None:
            return self, None
        after = Incidents({other: one for other, one in self.raised.items() if other != key})
        return after, _notice(event, known, at, lasted=event.lasted)


def _notice(event: AlertRaised | AlertCleared, incident: str, at: float, **figures: float) -> Notice:
    turn = "raised" if isinstance(event, AlertRaised) else "cleared"
    return Notice(
        id=f"{incident}.{turn}",
        incident=incident,
        turn=turn,
        rule=event.rule,
        subject=event.subject,
        value=event.value,
        at=at,
        **figures,
    )


def dropped_from(pending: Sequence[Notice]) -> Sequence[Notice]:
    """Return what is dropped of a queue that is too long: an incident that is over, or else the oldest notice.

    An incident that is over and of which nothing was told yet can be missed best.
    """
    raised = {one.incident: one for one in pending if one.turn == "raised"}
    over = next((one for one in pending if one.turn == "cleared" and one.incident in raised), None)
    return pending[:1] if over is None else (raised[over.incident], over)


def sign(secret: str, *, id: str, time: int, body: bytes) -> str:  # noqa: A002 - the word of the specification.
    """Return the signature of a delivery: HMAC-SHA256 over its id, its time (seconds since 1970) and its body.

    >>> sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id="msg_1", time=1614265330, body=b"{}")[:3]
    'v1,'
    """
    signed = b".".join((id.encode(), str(time).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now: float) -> bool:
    """Tell whether a delivery was signed with this secret, and not more than five minutes ago; for a receiver.

    `headers` have names in lower case. The id tells a receiver what it has been told already.
    """
    time, given = headers.get(TIME, ""), headers.get(SIGNATURE, "")
    if not (time.isascii() and time.isdigit() and len(time) <= 12 and abs(now - int(time)) <= TOLERANCE):
        return False
    expected = sign(secret, id=headers.get(ID, ""), time=int(time), body=body).encode()
    return any(hmac.compare_digest(one.encode(), expected) for one in given.split(" "))
