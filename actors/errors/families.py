"""Why a call failed: a closed set of error families, one for each decision that a caller makes.

| family            | retry the same provider | reroute | counts against the provider |
|-------------------|-------------------------|---------|-----------------------------|
| `NotAdmitted`     | mostly (see `retryable`)| yes     | only `ConnectionFailed`     |
| `Transient`       | yes                     | yes     | yes                         |
| `Throttled`       | after `retry_after`     | yes     | no                          |
| `QuotaExhausted`  | no                      | yes     | no                          |
| `Permanent`       | no                      | by scope| no                          |
| `Unclassified`    | no                      | yes     | yes                         |
| `OutcomeUnknown`  | no: reconcile first     | no      | yes                         |
| `BadAnswer`       | no                      | if asked| no                          |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypedDict, Unpack, get_args

import msgspec

from actors.money import ZERO, Micros
from actors.validation import check_count
from runtime import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.limits.reported import ReportedLimit
    from actors.limits.waiting import Waiting

CallOutcome: TypeAlias = Literal["not_started", "unknown", "done"]
"""What is known about the call: it never took effect, that is not known, or the provider answered it."""
Charged: TypeAlias = Literal["no", "held", "yes"]
"""What is known about the money: not spent, perhaps spent (keep the reservation), or spent."""
Scope: TypeAlias = Literal["request", "here", "provider"]
"""What a refusal concerns: the request wherever it goes, this request at this provider, or the provider."""
BadAnswerReason: TypeAlias = Literal["empty", "filtered", "refused", "not_json"]
"""Why an answer is of no use."""
OUTCOMES: tuple[CallOutcome, ...] = get_args(CallOutcome)
CHARGES: tuple[Charged, ...] = get_args(Charged)
SCOPES: tuple[Scope, ...] = get_args(Scope)
MAX_RETRY_AFTER = 365 * 86_400.0
"""Seconds; a longer `retry_after` is shortened to this."""


def checked_retry_after(retry_after: float) -> float:
    """Return the seconds to wait; raises TypeError if it is not a number, and ValueError if it is below 0 or NaN."""
    if isinstance(retry_after, bool) or not isinstance(retry_after, float | int):
        raise TypeError(f"retry_after must be a number of seconds, got {retry_after!r:.100}")
    if not retry_after >= 0:
        raise ValueError(f"retry_after must be >= 0 seconds, got {retry_after}")
    return min(retry_after, MAX_RETRY_AFTER)


class CallFacts(TypedDict, total=False):
    """The keyword arguments that every family takes."""

    provider: str | None
    outcome: CallOutcome | None
    charged: Charged | None
    retry_after: float | None
    status: int | None
    wire_calls: int | None
    said: str


class CallFailed(Refusal):
    """A call to a provider, or a request over several, has failed; catch it to catch every family.

    `provider` is the name of the provider that was called, `retry_after` the least seconds to wait before the next try,
    and `status` the HTTP status; each is None if there is none. `limits` are the limits that the provider reported.
    `wire_calls` is the number of HTTP requests sent for this one attempt: more than 1 if a layer below retries on its
    own, or follows redirects. `key` is the idempotency key of a failed request, under which the ledger keeps its money.
    `said` is what the provider itself said, or "": at most 500 characters of one line, without secrets; the text of the
    error ends with it. A transport of your own may give it as it comes.
    `held` are the calls of a failed request that may have been charged, and `at_risk` is how much of that may be paid
    twice because other providers were paid besides. `spent` is what a failed request is known to have cost, and `calls`
    how many calls it made. One that is `replayed` was paid for once, by an earlier request under its key, and costs
    nothing this time.
    """

    key: str | None = None
    said: str = ""
    outcome: CallOutcome = "unknown"
    charged: Charged = "no"
    wire_calls: int = 1
    limits: tuple[ReportedLimit, ...] = ()
    held: tuple[PossibleCharge, ...] = ()
    at_risk: Micros = ZERO
    spent: Micros = ZERO
    calls: int = 0
    replayed: bool = False
    answer: Any = None
    """The reply, as far as it came, of a call that is charged though it failed; None if nothing of use is known."""

    retryable: ClassVar[bool] = False
    """Whether the same call to the same provider may succeed if it is tried again, and is safe to try again."""
    blames_provider: ClassVar[bool] = False
    """Whether a breaker counts it as a failure of the provider."""

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        outcome: CallOutcome | None = None,
        charged: Charged | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        wire_calls: int | None = None,
        said: str = "",
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.said = said
        self.retry_after = None if retry_after is None else checked_retry_after(retry_after)
        self.status = status
        if outcome is not None:
            if outcome not in OUTCOMES:
                raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}, got {outcome!r}")
            self.outcome = outcome
        if charged is not None:
            if charged not in CHARGES:
                raise ValueError(f"charged must be one of {', '.join(CHARGES)}, got {charged!r}")
            self.charged = charged
        if wire_calls is not None:
            check_count("wire_calls", wire_calls, least=0)
            self.wire_calls = wire_calls

    @property
    def kind(self) -> str:
        """The name of the class, as recorded in an `Attempt`."""
        return type(self).__name__

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}: {self.said}" if self.said and self.said not in message else message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with the message alone, which most families do not accept.
        return _unpickle, (type(self), self.args), self.__dict__


def _unpickle(kind: type[CallFailed], args: tuple[Any, ...]) -> CallFailed:
    return kind.__new__(kind, *args)


class NotAdmitted(CallFailed):
    """The call never ran and cost nothing: it is safe to send it to another provider.

    `waiting` is what its request waited for, or would have had to wait for; None if no wait would help it.
    """

    outcome: CallOutcome = "not_started"
    wire_calls: int = 0
    waiting: Waiting | None = None
    retryable: ClassVar[bool] = True


class BreakerOpen(NotAdmitted):
    """The breaker of this provider is open: the call never ran.

    `retry_after` is None if the provider was isolated by hand; then it stays so until it is released by hand.
    """

    def __init__(self, provider: str, *, retry_after: float | None) -> None:
        when = "release it by hand" if retry_after is None else f"retry in {retry_after:.1f} s"
        super().__init__(f"breaker of {provider!r} is open; {when}", provider=provider, retry_after=retry_after)


class RateLimited(NotAdmitted):
    """The local limiter of this quota has no permit left: the call never ran."""

    def __init__(self, quota: str, *, retry_after: float, provider: str | None = None) -> None:
        super().__init__(
            f"quota {quota!r} is used up; retry in {retry_after:.1f} s",
            provider=provider,
            retry_after=retry_after,
        )
        self.quota = quota


class BulkheadFull(NotAdmitted):
    """Every slot of this provider is taken: the call never ran.

    `given_up` of them are taken by calls for which no caller waits any more, because a thread cannot be cut.
    """

    def __init__(self, provider: str, *, max_concurrency: int, given_up: int = 0) -> None:
        what = f"{provider!r} is busy with {max_concurrency} calls, its max_concurrency"
        if given_up:
            what += (
                f", of which {given_up} were given up and still run in threads; let its function end by call.timeout"
            )
        super().__init__(f"{what}; wait, or raise that limit", provider=provider)
        self.max_concurrency = max_concurrency
        self.given_up = given_up


class TooManyWaiting(NotAdmitted):
    """So many requests wait already that this one may not; `max_waiting` is the bound of the market, or of its tenant.

    Nothing was called, and nothing is reserved. In about `retry_after` seconds those that wait now will be gone.
    """

    def __init__(self, service: str, *, max_waiting: int, retry_after: float, tenant: str | None = None) -> None:
        whose = "the market" if tenant is None else f"its tenant {tenant!r}"
        super().__init__(
            f"a request for {service!r} would have to wait, and {max_waiting} wait already, the max_waiting of "
            f"{whose}; come back in {retry_after:.1f} s, or raise that bound",
            retry_after=retry_after,
        )
        self.tenant = tenant
        self.service = service
        self.max_waiting = max_waiting


class BudgetExceeded(NotAdmitted):
    """A spending cap refuses this call; `cap` names it: "request", or an account.

    `account` is the one that the call names, if the cap is of an account above that. If the cap renews and will then
    have enough, that is in `retry_after` seconds. Of an account that `is_paused` nothing is given, whatever its cap.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        *,
        needed: Micros,
        available: Micros,
        cap: str,
        provider: str | None = None,
        may_free_up: bool = False,
        account: str | None = None,
        retry_after: float | None = None,
        is_paused: bool = False,
    ) -> None:
        wait = "" if retry_after is None else f"wait {retry_after:.0f} s until it renews, "
        super().__init__(
            f"account {cap!r} is paused, so that no call draws on it; resume it, or name another account"
            if is_paused
            else f"the call needs {needed} but only {available} of the {cap} budget is left; "
            f"{wait}raise that budget, or lower max_price",
            provider=provider,
            retry_after=retry_after,
        )
        self.needed = needed
        self.available = available
        self.cap = cap
        self.account = cap if account is None else account
        self.may_free_up = may_free_up
        """Whether calls under way may free enough money, or the cap renews within the time of the request."""
        self.is_paused = is_paused


class LedgerDown(NotAdmitted):
    """The ledger does not answer, so it is not known whether there is money for the call. Nothing was spent."""

    retryable: ClassVar[bool] = False

    def __init__(self, reason: str) -> None:
        super().__init__(f"the ledger does not answer, so no money can be reserved: {reason}")
        self.reason = reason


class Overpriced(NotAdmitted):
    """The provider `charged` more than it had `quoted`, in micro-units, and is left alone for a while that grows.

    With a tariff, what is quoted for a call is what its tokens can cost at most.
    It is called again at once if it lists another price, or is released by hand. `retry_after` is None while one call
    finds out whether it still charges so much.
    """

    def __init__(
        self, provider: str, *, quoted: Micros, charged: Micros | None = None, retry_after: float | None = None
    ) -> None:
        amount = "" if charged is None else f", {charged}"
        when = "until one call has found out" if retry_after is None else f"for {retry_after:.0f} s"
        super().__init__(
            f"{provider!r} has charged more than the {quoted} it lists{amount}, and is left alone {when}; "
            "list another price, or release it",
            provider=provider,
            retry_after=retry_after,
        )
        self.quoted = quoted
        self.charged_before = charged


class LeftAlone(NotAdmitted):
    """The provider has refused `what`, and is left alone for a while that grows: the call never ran.

    `said` is what it said to a request of the same tenant, or "".

    `retry_after` is None while one call finds out whether it still does. It is called again at once if it is released
    by hand, or listed with a new key. `resets_after` are the seconds until its refusal ends by its own word, such as at
    the reset of a day's quota; None if it does not say.
    """

    resets_after: float | None = None

    def __init__(self, provider: str, *, what: str, said: str, retry_after: float | None) -> None:
        when = "until one call has found out" if retry_after is None else f"for {retry_after:.0f} s"
        words = f": {said}" if said else ""
        super().__init__(
            f"{provider!r} refuses {what}, and is left alone {when}{words}; correct that, and release it or list it "
            "with a new key",
            provider=provider,
            retry_after=retry_after,
        )
        self.what = what
        self.said = said


class WindowTooSmall(NotAdmitted):
    """The input has more tokens than the `window` of the provider holds: the call never ran."""

    retryable: ClassVar[bool] = False

    def __init__(self, provider: str, *, window: int) -> None:
        super().__init__(
            f"the input is too long for the window of {provider!r}, {window:,} tokens; shorten it", provider=provider
        )
        self.window = window


class RegistryDown(NotAdmitted):
    """The registry does not answer, and no earlier answer is cached: the providers of the service are not known."""

    def __init__(self, service: str, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"the registry could not list the providers of {service!r}: {reason}", retry_after=retry_after)
        self.service = service
        self.reason = reason


class DeadlineTooShort(NotAdmitted):
    """Less time is left than a call takes, so it was not begun. `needed` and `left` are seconds."""

    retryable: ClassVar[bool] = False

    def __init__(self, *, needed: float, left: float, provider: str | None = None) -> None:
        super().__init__(
            f"a call takes about {needed:g} s but only {left:g} s are left; allow a longer timeout",
            provider=provider,
        )
        self.needed = needed
        self.left = left


class ConnectionFailed(NotAdmitted):
    """No connection could be made (refused, DNS, TLS, no route): the request was not sent."""

    wire_calls: int = 1
    blames_provider: ClassVar[bool] = True

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(f"no connection to {provider!r}: {reason}", provider=provider)
        self.reason = reason


class Transient(CallFailed):
    """The provider failed temporarily (503, other 5xx, a reset or timeout of a call that is safe to repeat)."""

    retryable: ClassVar[bool] = True
    blames_provider: ClassVar[bool] = True


class Throttled(CallFailed):
    """The provider is healthy but asks for fewer calls (429); wait `retry_after` seconds if it is given."""

    outcome: CallOutcome = "not_started"
    retryable: ClassVar[bool] = True


class QuotaExhausted(CallFailed):
    """The provider will not serve until it is paid (402, insufficient_quota): reroute, do not retry."""

    outcome: CallOutcome = "not_started"


class Permanent(CallFailed):
    """The request is refused (400, 401, 403, 404, 422): at this provider it fails again unless something changes.

    `scope` tells what the refusal concerns. "request": the request is wrong wherever it goes, which ends it (the
    default). "here": this provider cannot serve this request, such as one too large for it; the next is asked, and this
    one is not blamed. Refused content is "here" as well, and concerns "content". "provider": the key, the account, the
    region or a name such as a model's is refused; the next is asked, and the provider is left alone for a while.
    `concerns` says which: "key", "account", "region" or "name". An input that is too long for the window of a model is
    "here" and concerns the "window": only providers with a larger one are asked.
    """

    outcome: CallOutcome = "done"
    scope: Scope = "request"
    concerns: str | None = None

    def __init__(
        self, message: str, *, scope: Scope = "request", concerns: str | None = None, **known: Unpack[CallFacts]
    ) -> None:
        super().__init__(message, **known)
        if scope not in SCOPES:
            raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
        self.scope = scope
        self.concerns = concerns


class Unclassified(CallFailed):
    """A failure that no rule knows: try another provider, and have a person look at the cause (`__cause__`)."""

    blames_provider: ClassVar[bool] = True


class OutcomeUnknown(CallFailed):
    """A paid call may have happened: reconcile it first (look up, cancel, or repeat under its key)."""

    charged: Charged = "held"
    blames_provider: ClassVar[bool] = True


class BadAnswer(CallFailed):
    """The provider answered, and is paid for it, but the answer is of no use.

    `reason` says why: it is "empty", it was "filtered", the model "refused", or it is "not_json" although the request
    asks for JSON. `answer` is the reply, as it came. With `on_bad_answer="next"` the next provider is asked.
    """

    outcome: CallOutcome = "done"
    charged: Charged = "yes"

    def __init__(self, message: str, *, reason: BadAnswerReason, **known: Unpack[CallFacts]) -> None:
        super().__init__(message, **known)
        self.reason: BadAnswerReason = reason


class StreamBroken(Transient):
    """A stream broke off after its first piece; `answer` is the reply as far as it came, and `cause` says why."""

    def __init__(self, provider: str, cause: CallFailed) -> None:
        super().__init__(
            f"the stream of {provider!r} broke off: {cause.args[0] if cause.args else cause.kind}",
            provider=provider,
            outcome=cause.outcome,
            charged=cause.charged,
            status=cause.status,
            said=cause.said,
        )
        self.cause = cause
        self.answer, self.limits, self.wire_calls = cause.answer, cause.limits, cause.wire_calls


class ConsumerLeft(CallFailed):
    """The consumer of a stream takes no more pieces: it left, or took nothing for too long."""

    def __init__(
        self, why: str = "the consumer of the stream takes no more pieces; read it faster, or allow more patience"
    ) -> None:
        super().__init__(why)


class StreamCut(CallFailed):
    """A stream under this key ended early when it was paid; here is what came of it, which costs nothing again.

    `output` is the answer as far as it came (None if that has no form of its own), `pieces` are those that were given,
    and `text` is the text in them. `cost` is what is known to have been paid, and `may_cost` what is held besides,
    because it may be. `why` says why it ended.
    """

    outcome: CallOutcome = "done"
    charged: Charged = "yes"
    replayed: bool = True

    def __init__(self, key: str, *, provider: str, why: str, cost: Micros, may_cost: Micros) -> None:
        super().__init__(
            f"the stream under key {key!r} ended early at {provider!r} ({why}); it cost {cost}, and may cost "
            f"{may_cost} besides; take what came of it, or pay again with repurchase=True",
            provider=provider,
            charged="held" if may_cost else "yes",
        )
        self.key, self.why = key, why
        self.cost, self.may_cost = cost, may_cost
        self.output: Any = None
        self.pieces: tuple[Any, ...] = ()
        self.text = ""


class NoProvider(CallFailed):
    """No provider offers the service, or the filter dropped all that do; `dropped` counts the reasons."""

    outcome: CallOutcome = "not_started"

    def __init__(self, service: str, *, offered: int, dropped: Mapping[str, int] | None = None) -> None:
        self.service = service
        self.offered = offered
        self.dropped = dict(dropped or {})
        if self.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
            message = f"{offered} providers offer {service!r}, but none is left: {reasons}; relax the filter"
        else:
            message = f"{offered} providers offer {service!r}; register a provider for it"
        super().__init__(message)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One failed call of a request: its provider, error, start (loop time), latency (seconds) and cost.

    `may_cost` is what may be charged for it besides, as far as was known when the request went on. `said` is what the
    provider itself said, or "", and `retry_after` for how many seconds it asked to wait.
    """

    provider: str
    error: str
    kind: str  # The class of the error, such as "Transient".
    started: float
    latency: float
    cost: Micros = ZERO
    may_cost: Micros = ZERO
    said: str = ""
    retry_after: float | None = None

    def __str__(self) -> str:
        perhaps = f" and perhaps {self.may_cost}" if self.may_cost else ""
        return f"{self.provider}: {self.kind} after {self.latency:.3f} s, {self.cost}{perhaps}: {self.error}"


class PossibleCharge(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may have been charged: `amount` is held for it at the ledger, under `key`.

    `reservation` is the number by which `Resolve` settles or releases it.
    """

    provider: str
    amount: Micros
    key: str
    reservation: int


class AllProvidersFailed(CallFailed):
    """Every provider that could be tried has failed.

    `attempts` holds each call in order, and `refused` why the other providers were not called, or not called again.
    `left_unknown` means that a call may have been paid, and that this is still not known. `said` is from the last
    attempt in which a provider said something.
    """

    def __init__(
        self,
        service: str,
        *,
        attempts: Sequence[Attempt],
        refused: Sequence[CallFailed] = (),
        left_unknown: bool = False,
    ) -> None:
        listed = "".join(f"\n  {number}. {attempt}" for number, attempt in enumerate(attempts, 1))
        listed += "".join(f"\n  not called: {refusal}" for refusal in refused)
        unknown = left_unknown or any(attempt.kind == OutcomeUnknown.__name__ for attempt in attempts)
        paid = any(attempt.cost for attempt in attempts)
        super().__init__(
            f"all providers of {service!r} failed, {len(attempts)} attempts:{listed}",
            outcome="unknown" if unknown else "done" if attempts else "not_started",
            charged="held" if unknown else "yes" if paid else "no",
            said=next((attempt.said for attempt in reversed(attempts) if attempt.said), ""),
        )
        self.service = service
        self.attempts = tuple(attempts)
        self.refused = tuple(refused)


class InputTooLong(AllProvidersFailed):
    """The input fits the window of no provider: `largest` is the largest one in tokens, at `largest_at`.

    Both are None if no window is known: then each provider has refused the input itself.
    """

    def __init__(
        self,
        service: str,
        *,
        attempts: Sequence[Attempt],
        refused: Sequence[CallFailed] = (),
        largest: tuple[int, str] | None,
        left_unknown: bool = False,
    ) -> None:
        super().__init__(service, attempts=attempts, refused=refused, left_unknown=left_unknown)
        window, at = (None, None) if largest is None else largest
        what = "no window is known" if window is None else f"the largest is {window:,} tokens, at {at!r}"
        listed = str(self.args[0]).partition(":")[2]
        text = (
            f"the input is too long for every provider of {service!r}; {what}: shorten it, or list a model with a "
            f"larger window{listed}"
        )
        self.args = (text,)
        self.largest, self.largest_at = window, at


class PoisonItem(AllProvidersFailed):
    """The item itself is to blame: it failed where others are answered, and is not tried again.

    `chance` is how likely it is that it failed by chance, below 1 in 5,000. `attempts` holds each call in order.
    """

    def __init__(self, service: str, *, attempts: Sequence[Attempt], chance: float, left_unknown: bool = False) -> None:
        super().__init__(service, attempts=attempts, left_unknown=left_unknown)
        listed = "".join(f"\n  {number}. {attempt}" for number, attempt in enumerate(attempts, 1))
        text = (
            f"this item fails wherever {service!r} is answered to others (1 in {1 / chance:,.0f} by chance) and is not "
            f"tried again; look at it before you send it once more, {len(attempts)} attempts:{listed}"
        )
        self.args = (text,)
        self.chance = chance
