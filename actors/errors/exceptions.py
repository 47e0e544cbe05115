"""Classifies exceptions into families: by the answer that they carry, by type, and at last by text."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from actors.errors.bodies import error_in_body
from actors.errors.carried_answer import CarriedAnswer, answer_of
from actors.errors.classification import ambiguous, classify_status
from actors.errors.departure import LOCAL_MISTAKES, departure_of
from actors.errors.error_tree import attribute, lineage, text_of, tree_of
from actors.errors.families import CallFailed, ConnectionFailed, OutcomeUnknown, Permanent
from actors.errors.local_refusals import local_refusal_of
from actors.errors.texts import classify_text
from actors.errors.tries import Tries, tries_of
from actors.errors.waits import retry_after_of
from actors.limits.headers import parse_limits

if TYPE_CHECKING:
    from actors.errors.error_tree import ErrorNode

CLIENTS_OWN = ("timeout", "connectionerror")
"""What the names of the errors hold that client libraries make themselves; some put a status on them."""
CALLERS_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError)
DECODE_ERROR = ".JSONDecodeError"
"""How json, simplejson, orjson, ujson and requests name the error of a text that is no JSON."""
NO_RPC_CONNECTION = ("failed to connect to all addresses", "dns resolution failed")
"""What gRPC says, with UNAVAILABLE, if a call found no connection."""
RPC_TOO_LARGE = "message larger than max"
"""What gRPC says, with RESOURCE_EXHAUSTED, of a request or of an answer."""
RPC_REQUEST_TOO_LARGE = ("client: sent message larger", "server: received message larger")
"""Which of these concern the request, as newer versions of gRPC tell; the others may be said of an answer."""
ADVICE = (
    "if its client makes one try and follows no redirect, say client_retries=False; otherwise switch that off, since it"
    " hides whether an earlier try was at work"
)


def classify(
    error: BaseException,
    *,
    provider: str,
    sent: bool = True,
    paid: bool = False,
    idempotent: bool = True,
    client_retries: bool | None = None,
    handled: BaseException | None = None,
) -> CallFailed:
    """Return the family of `error`; a `CallFailed` is returned as it is. Raise the result `from error`.

    An answer that the error of a client carries is classified as that answer; one that is wrapped by others is read
    through them, and a group counts as the worst of its members. `sent` means that the request may have reached the
    provider. If a call is `paid` and not `idempotent`, repeating it may cost twice: a failure that leaves open whether
    the call happened is then `OutcomeUnknown`, not `Transient`.

    `client_retries` says whether the client may retry, or follow redirects, on its own. Then its last error proves
    nothing of its earlier tries. If that is not said (None), it is judged by what the error tells of itself. `handled`
    is an error that was being handled before the call began, and says nothing of it.

    A cancellation (any BaseException that is not an Exception) is not a failure: it is raised again.
    """
    if issubclass(type(error), CallFailed) and isinstance(error, CallFailed):
        return error
    if not issubclass(type(error), Exception):
        raise error
    tree = tree_of(error, until=handled)
    call = FailedCall(provider, sent, paid, idempotent, client_retries, tries_of(tree, until=handled))
    return call.family_of(tree)


def is_retryable_error(error: BaseException) -> bool:
    """Whether the same call may succeed if tried again: timeouts, refused connections, 503, 429, "temporary".

    False for a caller's mistakes (ValueError, 400, unauthorized), for missing money, for cancellation, and for errors
    that no rule knows: raise `Transient` to ask for a retry. A text that is no JSON is an answer's: True.

    >>> is_retryable_error(TimeoutError()), is_retryable_error(ValueError("a temporary name"))
    (True, False)
    """
    return issubclass(type(error), Exception) and classify(error, provider="provider").retryable


class CallFlags(TypedDict):
    """What every rule has to know of a call."""

    provider: str
    paid: bool
    idempotent: bool


class FailedCall(NamedTuple):
    """A call that failed, and what its client's error tells of its tries; the fields are those of `classify`."""

    provider: str
    sent: bool
    paid: bool
    idempotent: bool
    client_retries: bool | None
    tries: Tries

    def family_of(self, tree: ErrorNode) -> CallFailed:
        """Return the family of an error with those inside it."""
        failure = self._meaning(tree) or self._by_type(tree)
        if self.tries.counted is not None and not any(node.error is failure for node in tree.walk()):
            failure.wire_calls = self.tries.counted
        return failure

    def _meaning(self, node: ErrorNode) -> CallFailed | None:
        """Return the family of an error by an answer or by how far its request came; None if it tells neither."""
        error = node.error
        if issubclass(type(error), CallFailed) and isinstance(error, CallFailed):
            return error
        if node.is_group:
            return self._of_several(node)
        if (refusal := local_refusal_of(error)) is not None:
            scope, concerns = refusal
            message = f"{self.provider!r}: {text_of(error)}"
            return self._doubted(
                Permanent(message, provider=self.provider, scope=scope, concerns=concerns, outcome="not_started")
            )
        departure, answer = departure_of(node), answer_of(error)
        # A status above an error of the connection is the SDK's own: no answer had come.
        if departure is None and answer is not None:
            if _is_made_by_client(error, answer):
                departure = "maybe"
            elif (failure := self._by_answer(node, answer)) is not None:
                return failure
        if departure is not None:
            return self._connection_failed(node, never_left=departure == "never")
        if len(node.inner) == 1:
            return self._meaning(node.inner[0])
        return self._of_several(node) if node.inner else None

    def _of_several(self, node: ErrorNode) -> CallFailed:
        """Return the worst of the families of errors that stand side by side: first what may have been paid."""
        failures = [self._meaning(one) or self._by_type(one) for one in node.inner]
        failures = failures or [self._by_type(node)]
        return max(failures, key=lambda one: (one.charged != "no", isinstance(one, OutcomeUnknown)))

    def _by_answer(self, node: ErrorNode, answer: CarriedAnswer) -> CallFailed | None:
        """Return the family of the answer that an error carries; None if it is a success that holds no error."""
        if answer.is_rpc and (failure := self._by_rpc(node, answer)) is not None:
            return failure
        now = datetime.now(UTC)
        wait = _wait_of(node.error, answer, now=now)
        if answer.status >= 300:
            failure = classify_status(
                answer.status,
                host=answer.host,
                retry_after=wait,
                headers=answer.headers,
                body=answer.body,
                **self._facts,
            )
        else:
            failure = error_in_body(answer.error_body, host=answer.host, retry_after=wait, **self._facts)
        if failure is None:
            return None
        failure.limits = parse_limits(answer.headers, now=now, host=answer.host, provider=self.provider)
        return self._doubted(failure)

    def _by_rpc(self, node: ErrorNode, answer: CarriedAnswer) -> CallFailed | None:
        """Return the family of an error that the client of gRPC may have made itself; None for the server's own."""
        text = f"{text_of(node.error)} {answer.text}".lower()
        if answer.status == 503:
            return self._connection_failed(node, never_left=any(words in text for words in NO_RPC_CONNECTION))
        if answer.status == 429 and RPC_TOO_LARGE in text:
            if any(words in text for words in RPC_REQUEST_TOO_LARGE):
                message = f"{self.provider!r}: {text_of(node.error)}"
                return self._doubted(Permanent(message, provider=self.provider, scope="here"))
            return self._connection_failed(node, never_left=False)
        return None

    @property
    def _facts(self) -> CallFlags:
        return CallFlags(provider=self.provider, paid=self.paid, idempotent=self.idempotent)

    def _doubted(self, failure: CallFailed) -> CallFailed:
        """Keep the money of a call whose last try was refused, if an earlier one may have been at work."""
        if not self.paid or failure.charged != "no" or not (self.tries.are_several or self.client_retries):
            return failure
        told = f"{failure}; of earlier tries nothing is known: {ADVICE}"
        if not self.idempotent:
            unknown = OutcomeUnknown(
                told, provider=self.provider, status=failure.status, retry_after=failure.retry_after
            )
            unknown.limits = failure.limits
            return unknown
        failure.outcome, failure.charged = "unknown", "held"
        return failure

    def _connection_failed(self, node: ErrorNode, *, never_left: bool) -> CallFailed:
        """Return the family of a call that has no answer."""
        text = text_of(node.error)
        speaks_for_all = self.tries.speak_for_all(client_retries=self.client_retries)
        if not self.sent or (never_left and (speaks_for_all or not self.paid)):
            return ConnectionFailed(self.provider, text)
        if never_left:
            text = f"{text}; {ADVICE}"
        return ambiguous(f"{self.provider!r}: {text}", **self._facts)

    def _by_type(self, node: ErrorNode) -> CallFailed:
        """Return the family of an error that carries no answer and does not tell how far the call came."""
        kind, text = type(node.error), text_of(node.error)
        if issubclass(kind, OSError) and not issubclass(kind, LOCAL_MISTAKES):
            return self._connection_failed(node, never_left=False)
        if self.sent and is_decode_error(kind):
            return ambiguous(f"{self.provider!r} sent an answer that cannot be read: {text}", **self._facts)
        if issubclass(kind, LOCAL_MISTAKES + CALLERS_MISTAKES):
            # A mistake found after sending, such as an answer that does not parse, does not bring the money back.
            charged = "held" if self.sent and self.paid else "no"
            return Permanent(f"{self.provider!r}: {text}", provider=self.provider, charged=charged)
        return self._doubted(classify_text(text, **self._facts, sent=self.sent))


def is_decode_error(kind: type[BaseException]) -> bool:
    """Tell whether errors of a class are raised of text that is no JSON, or of bytes that are no text.

    >>> is_decode_error(UnicodeDecodeError), is_decode_error(ValueError)
    (True, False)
    """
    return issubclass(kind, UnicodeDecodeError) or any(name.endswith(DECODE_ERROR) for name in lineage(kind))


def _is_made_by_client(error: BaseException, answer: CarriedAnswer) -> bool:
    """Tell whether a status is what a client library puts on its own timeout or lost connection: it has no response."""
    names = [name.lower() for name in lineage(type(error))]
    return not answer.has_response and any(own in name for own in CLIENTS_OWN for name in names)


def _wait_of(error: BaseException, answer: CarriedAnswer, *, now: datetime) -> float | None:
    """Return the seconds that an answer asks to wait, as it says, or as its client has read it."""
    wait = retry_after_of(answer.headers, answer.body, now=now, host=answer.host, status=answer.status)
    if wait is not None:
        return wait
    read = attribute(error, "retry_after")
    if isinstance(read, int | float) and not isinstance(read, bool) and 0 <= read < math.inf:
        return float(read)
    return None
