"""One logical request while it is served: what it has tried, spent and been refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.account import Account
from actors.errors import AllProvidersFailed, Attempt, CallFailed, DeadlineTooShort, NotAdmitted, OutcomeUnknown

if TYPE_CHECKING:
    from actors.requests import SmartRequest
    from actors.routing import Tried
    from actors.target import Target


class Job:
    """One logical request while it is served."""

    def __init__(self, message: SmartRequest, request_id: str, started: float, deadline: float) -> None:
        self.message = message
        self.request_id = request_id
        self.started = started
        self.deadline = deadline
        self.account = Account(name="request", cap=message.budget)
        self.candidates: dict[str, Target] = {}
        self.tried: dict[str, Tried] = {}
        self.refused: dict[str, NotAdmitted] = {}
        self.attempts: list[Attempt] = []
        self.calls = 0
        self.last: str | None = None
        self.held_at: str | None = None
        """Who may have been paid already; until that is known, nobody else is."""
        self.held: int = 0

    def failure(self) -> CallFailed:
        """Return the error of a request for which nothing more can be done."""
        refused = tuple(self.refused.values())
        if self.held_at is not None:
            why = self.attempts[-1].error if self.attempts else "it was refused"
            return OutcomeUnknown(
                f"{self.held_at!r} may have been paid, and it could not be found out: {why}", provider=self.held_at
            )
        if self.attempts:
            return AllProvidersFailed(self.message.service, attempts=self.attempts, refused=refused)
        if refused:
            return refused[0]
        return DeadlineTooShort(needed=0.0, left=0.0)
