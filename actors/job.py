"""One logical request while it is served: what it has tried, spent and been refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.account import Account, Purse, booking_of_failure, booking_of_reply
from actors.errors import AllProvidersFailed, Attempt, CallFailed, DeadlineTooShort, NotAdmitted, OutcomeUnknown
from actors.requests import SmartRequest, SmartResult
from actors.selection import NO_SIGNALS, Signals
from actors.transport import ProviderCall, ProviderReply
from actors.waiting import Place

if TYPE_CHECKING:
    from actors.admission import Admitted
    from actors.gateway import Sending
    from actors.market import Listing
    from actors.provider import Provider
    from actors.routing import Tried
    from actors.target import Target


class Job:
    """One logical request while it is served."""

    def __init__(self, message: SmartRequest, request_id: str, *, started: float, deadline: float) -> None:
        self.message = message
        self.request_id = request_id
        self.started = started
        self.deadline = deadline
        self.purses: tuple[Purse, ...] = (Purse(Account(name="request", cap=message.budget)),)
        """What the request draws on: its own budget, and the account that it names, if any."""
        self.place = Place(message.tenant or message.account or "default")
        self.candidates: dict[str, Target] = {}
        self.listings: dict[str, Listing] = {}
        """The candidates as discovery found them for this request; its prices hold for all of its calls."""
        self.standing_back: tuple[str, ...] = ()
        self.rated: dict[str, Provider] = {}
        """Those of them whose answers were scored, as good as that has shown them to be."""
        self.signals: Signals = NO_SIGNALS
        self.unhealthy: tuple[str, ...] = ()
        self.tried: dict[str, Tried] = {}
        self.refused: dict[str, NotAdmitted] = {}
        self.attempts: list[Attempt] = []
        self.calls = 0
        self.last: str | None = None
        self.held_at: str | None = None
        """Who may have been paid already; until that is known, nobody else is."""

    @property
    def held(self) -> int:
        """What that may have cost, in micro-units."""
        return self.purses[0].account.held

    @property
    def cost(self) -> int:
        """What the request is known to have cost, in micro-units."""
        return self.purses[0].account.settled

    def repeats(self, target: Target) -> bool:
        """Tell whether a call to `target` repeats, under its idempotency key, one that may have been paid."""
        return self.held_at == target.name and target.idempotent == "key"

    def reserve(self, admitted: Admitted) -> None:
        """Take the money that an admission decided on."""
        for purse, account in zip(self.purses, admitted.accounts, strict=True):
            purse.account = account

    def settle(
        self,
        target: Target,
        admitted: Admitted,
        reply: ProviderReply | None,
        error: CallFailed | None,
        sending: Sending,
    ) -> int:
        """Book what a call cost in every account that it drew on, and return it in micro-units."""
        repeats = self.held if self.repeats(target) else 0
        if reply is not None:
            booking = booking_of_reply(reply.cost, reserved=admitted.amount, repeats=repeats)
        else:
            # Of a call whose caller was cancelled nobody knows how far it came, once it was sent.
            charged = error.charged if error is not None else "held" if sending.is_sent else "no"
            booking = booking_of_failure(charged, reserved=admitted.amount, repeats=repeats)
        for purse in self.purses:
            purse.account = purse.account.book(booking)
        if booking.held:
            self.held_at = target.name
        elif not self.held:
            self.held_at = None
        return booking.cost

    def call_to(self, target: Target, *, timeout: float) -> ProviderCall:
        """Return the call to make, which has `timeout` seconds (> 0)."""
        listing, message = self.listings[target.name], self.message
        return ProviderCall(
            service=message.service,
            input=message.input,
            request_id=self.request_id,
            idempotency_key=message.idempotency_key or self.request_id,
            max_cost=listing.provider.price,
            timeout=timeout,
        )

    def result(self, reply: ProviderReply, provider: str) -> SmartResult:
        """Return the answer to the request."""
        return SmartResult(
            output=reply.output,
            provider=provider,
            cost=self.cost,
            attempts=self.calls,
            request_id=self.request_id,
            failures=tuple(self.attempts),
        )

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

    def __repr__(self) -> str:
        return f"<Job {self.request_id} {self.calls} calls, {len(self.refused)} refusals, until {self.deadline:.3f}>"
