"""What a client is told of a failure: its HTTP status, its code, and whether to try again. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from actors.errors.families import (
    AllProvidersFailed,
    BadAnswer,
    BudgetExceeded,
    CallFailed,
    InputTooLong,
    NoProvider,
    OutcomeUnknown,
    Permanent,
    PoisonItem,
)
from actors.ledger.errors import AlreadyPaid, KeyReused, StillUnsettled
from actors.money import ZERO, Micros, usd
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.model_calls.request import Form

STATUSES = {
    "BudgetExceeded": 402,
    "RateLimited": 429,
    "Throttled": 429,
    "TooManyWaiting": 429,
    "DeadlineTooShort": 504,
    "BreakerOpen": 503,
    "BulkheadFull": 503,
    "ConnectionFailed": 503,
    "JournalDown": 503,
    "LeftAlone": 503,
    "LedgerDown": 503,
    "NoProvider": 503,
    "QuotaExhausted": 503,
    "RegistryDown": 503,
    "Transient": 503,
}
"""The first kind that is among a failure and its causes says the status; none of them: 502."""
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""The types of errors that Anthropic's reference lists, by status."""
SERVER_ERROR = 500
LEAST_WAIT = 1.0
"""Seconds that a client is asked to wait if no better figure is known."""


class Problem(Exception):
    """A request gets no answer: `status` and `message` say why, `code` says it to programs.

    `retry_after` is in seconds, None if waiting does not help. `should_retry` is what the client's SDK is told: False
    wherever money was or may have been spent, None to leave it to the SDK. `param` is the field at fault, and `key` the
    idempotency key under which money is or may be spent.
    """

    key: str | None = None
    is_spent: bool = False
    """Whether money, or tokens of a limit, were or may have been spent."""
    cost: Micros = ZERO
    """What it is known to have cost."""
    attempts: int | None = None
    """How many calls were made for it; None if that is not known."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.message = message.encode("utf-8", "backslashreplace").decode()
        """What a client is told; what it quotes of a request may be no text that can be sent."""
        self.retry_after, self.should_retry, self.param = retry_after, should_retry, param

    @property
    def told_wait(self) -> int | None:
        """The seconds that its client is told to wait, in whole ones; None if it is told none."""
        return None if self.retry_after is None else max(1, math.ceil(self.retry_after))

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer that tells it.

        >>> Problem(429, "too many wait", code="TooManyWaiting", retry_after=0.2).headers()
        {'retry-after': '1'}
        """
        headers: dict[str, str] = {}
        if (wait := self.told_wait) is not None:
            headers["retry-after"] = str(wait)
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        if self.key is not None:
            headers["x-understudy-key"] = self.key
        if self.cost:
            headers["x-understudy-cost"] = usd(self.cost)
        if self.attempts:
            headers["x-understudy-attempts"] = str(self.attempts)
        return headers

    def body(self, form: Form | None, *, request_id: str) -> dict[str, Any]:
        """Return it in the words of a protocol; OpenAI's for None.

        >>> Problem(404, "no such model", code="model_not_found").body("messages", request_id="r-1")
        {'type': 'error', 'error': {'type': 'not_found_error', 'message': 'no such model'}, 'request_id': 'r-1'}
        """
        kind = "api_error" if self.status >= SERVER_ERROR else "invalid_request_error"
        if form == "messages":
            told = {"type": ANTHROPIC_TYPES.get(self.status, kind), "message": self.message}
            return {"type": "error", "error": told, "request_id": request_id}
        kind = "server_error" if self.status >= SERVER_ERROR else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": OPENAI_TYPES.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }

    def event(self, form: Form | None, *, request_id: str, number: int) -> dict[str, Any]:
        """Return it as the last event of a stream that has begun; `number` events were sent before.

        >>> Problem(503, "the door closes", code="closing").event("responses", request_id="r-1", number=4)["type"]
        'error'
        """
        if form == "responses":
            told = {"code": self.code, "message": self.message, "param": self.param}
            return {"type": "error", "sequence_number": number, **told}
        return self.body(form, request_id=request_id)


def problem_of(error: CallFailed | RuntimeFault, *, is_late: bool) -> Problem:
    """Return what a client is told of a failed request, or of one lost; `is_late` says that its time was up.

    There are three cases: 1. the request itself is at fault, or its key; 2. money was or may have been spent for
    nothing; 3. it found no room, provider or money, or providers failed.
    """
    if isinstance(error, RuntimeFault):
        message = f"what became of the request is not known: {error}"
        lost = Problem(504 if is_late else 500, message, code=type(error).__name__, should_retry=False)
        lost.is_spent = True
        return lost
    problem = _of_request(error) or _of_spent(error, is_late=is_late) or _of_providers(error, is_late=is_late)
    problem.is_spent, problem.cost, problem.attempts = error.charged != "no", error.spent, error.calls
    if problem.should_retry is False:
        problem.key = error.key
    return problem


def _of_request(error: CallFailed) -> Problem | None:
    spent = False if error.charged != "no" else None
    if isinstance(error, InputTooLong):
        return Problem(400, str(error), code="context_length_exceeded", should_retry=spent)
    if isinstance(error, KeyReused):
        return Problem(422, str(error), code="idempotency_error", should_retry=False)
    if isinstance(error, AlreadyPaid | StillUnsettled):
        return Problem(409, str(error), code="idempotency_error", should_retry=False)
    if isinstance(error, Permanent) and error.scope == "request":
        status = error.status if error.status in {400, 404, 413, 422} else 400
        return Problem(status, str(error), code="invalid_request", should_retry=spent)
    return None


def _of_spent(error: CallFailed, *, is_late: bool) -> Problem | None:
    if isinstance(error, OutcomeUnknown):
        return Problem(504 if is_late else 502, str(error), code=error.kind, should_retry=False)
    if isinstance(error, BadAnswer | PoisonItem):
        return Problem(502, str(error), code=error.kind, should_retry=False)
    return None


def _of_providers(error: CallFailed, *, is_late: bool) -> Problem:
    kinds = set(_kinds_of(error))
    spent = False if error.charged != "no" else None
    status = 504 if is_late and spent is None else 502
    status = next((status for kind, status in STATUSES.items() if kind in kinds), status)
    if status == STATUSES["BudgetExceeded"]:
        # A cap that renews says when; an SDK does not wait so long.
        wait = error.retry_after
        return Problem(status, str(error), code="budget_exceeded", retry_after=wait, should_retry=False)
    wait = _wait_of(error) if status in {429, 503} else None
    code = "no_provider" if isinstance(error, NoProvider) else error.kind
    return Problem(status, str(error), code=code, retry_after=wait, should_retry=spent)


def _kinds_of(error: CallFailed) -> Iterable[str]:
    yield error.kind
    if isinstance(error, BudgetExceeded):
        yield "BudgetExceeded"
    if isinstance(error, AllProvidersFailed):
        yield from (attempt.kind for attempt in error.attempts)
        yield from (refusal.kind for refusal in error.refused)


def _wait_of(error: CallFailed) -> float:
    refusals = error.refused if isinstance(error, AllProvidersFailed) else ()
    waits = (one.retry_after for one in (error, *refusals))
    return min((wait for wait in waits if wait is not None), default=LEAST_WAIT)
