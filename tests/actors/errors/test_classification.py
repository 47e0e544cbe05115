import asyncio
import errno
import json
import socket
import ssl
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors.classification import (
    classify_status,
    is_own_answer,
)
from actors.errors.exceptions import classify, is_retryable_error
from actors.errors.families import (
    BreakerOpen,
    BudgetExceeded,
    CallFailed,
    ConnectionFailed,
    OutcomeUnknown,
    Permanent,
    QuotaExhausted,
    Throttled,
    Transient,
    Unclassified,
)
from actors.errors.texts import TEXTS
from actors.money import Micros


class ClientError(Exception):
    def __init__(self, message: str, **attributes: object) -> None:
        super().__init__(message)
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (ConnectionRefusedError("refused"), ConnectionFailed),
        (socket.gaierror(socket.EAI_NONAME, "unknown name"), ConnectionFailed),
        (ssl.SSLCertVerificationError("expired"), ConnectionFailed),
        (OSError(errno.EHOSTUNREACH, "no route"), ConnectionFailed),
        (TimeoutError(), Transient),
        (ConnectionResetError(), Transient),
        (BrokenPipeError(), Transient),
        (asyncio.IncompleteReadError(b"", 4), Transient),
        (OSError(errno.EIO, "i/o"), Transient),
        (FileNotFoundError("prompt.txt"), Permanent),
        (ValueError("language"), Permanent),
        (TypeError("text"), Permanent),
        (RuntimeError("boom"), Unclassified),
    ],
    ids=repr,
)
def test_an_error_is_classified_by_its_type(error, family):
    failure = classify(error, provider="acme")
    assert type(failure) is family
    assert failure.provider == "acme"
    assert type(error).__name__ in str(failure)


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), EOFError(), OSError(errno.EIO, "i/o")])
@pytest.mark.parametrize(("paid", "idempotent"), [(False, False), (False, True), (True, True), (True, False)])
def test_a_broken_off_call_is_of_unknown_outcome_only_if_repeating_it_may_cost_twice(error, paid, idempotent):
    failure = classify(error, provider="acme", paid=paid, idempotent=idempotent)
    assert type(failure) is (OutcomeUnknown if paid and not idempotent else Transient)
    assert (failure.outcome, failure.charged) == ("unknown", "held" if paid else "no")


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), OSError(errno.EIO, "i/o")])
def test_a_call_that_never_left_is_safe_even_if_paid(error):
    failure = classify(error, provider="acme", sent=False, paid=True, idempotent=False)
    assert type(failure) is ConnectionFailed
    assert (failure.outcome, failure.charged) == ("not_started", "no")


def test_an_unknown_error_of_a_paid_call_is_never_repeated_blindly():
    error = RuntimeError("a temporary oddity")
    assert type(classify(error, provider="acme", paid=True, idempotent=False)) is OutcomeUnknown
    assert type(classify(error, provider="acme", paid=True, idempotent=True)) is Transient
    assert classify(error, provider="acme", paid=True).charged == "held"


@pytest.mark.parametrize("decode", [lambda: json.loads("<html>"), lambda: bytes([255]).decode()], ids=["json", "text"])
def test_an_answer_that_does_not_parse_is_a_broken_one_and_no_mistake_of_the_caller(decode):
    with pytest.raises(ValueError) as caught:
        decode()
    failure = classify(caught.value, provider="acme", paid=True)
    assert (type(failure), failure.charged) == (Transient, "held")
    assert "sent an answer that cannot be read" in str(failure)
    assert type(classify(caught.value, provider="acme", paid=True, idempotent=False)) is OutcomeUnknown
    failure = classify(caught.value, provider="acme", paid=True, sent=False)
    assert (type(failure), failure.charged) == (Permanent, "no")


def test_an_error_that_is_already_classified_passes_through():
    error = Throttled("slow down", provider="other", retry_after=3.0)
    assert classify(error, provider="acme") is error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_cancellation_is_not_a_failure_and_passes_straight_through(error):
    with pytest.raises(type(error)) as caught:
        classify(error, provider="acme")
    assert caught.value is error
    assert not is_retryable_error(error)


@pytest.mark.parametrize(
    "error",
    [
        ClientError("slow down", status_code=429),
        ClientError("slow down", status=429),
        ClientError("slow down", response=SimpleNamespace(status_code=429)),
    ],
)
def test_the_status_a_client_library_puts_on_its_error_is_found(error):
    failure = classify(error, provider="acme")
    assert (type(failure), failure.status) == (Throttled, 429)


def test_text_never_overrides_type_or_status():
    assert type(classify(ValueError("temporary"), provider="acme")) is Permanent
    assert type(classify(ClientError("temporary", status_code=400), provider="acme")) is Permanent
    assert type(classify_status(503, provider="acme", body="insufficient_quota")) is Transient
    assert type(classify_status(400, provider="acme", body="a temporary problem")) is Permanent


@pytest.mark.parametrize(("text", "family"), TEXTS)
def test_each_row_of_the_texts_is_a_last_resort(text, family):
    assert type(classify(RuntimeError(f"the provider said: {text.upper()}"), provider="acme")) is family


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (301, Permanent),
        (302, Transient),
        (303, Transient),
        (308, Permanent),
        (400, Permanent),
        (401, Permanent),
        (402, QuotaExhausted),
        (403, Permanent),
        (404, Permanent),
        (408, Transient),
        (409, Transient),
        (421, Transient),
        (422, Permanent),
        (425, Transient),
        (429, Throttled),
        (499, Transient),
        (500, Transient),
        (502, Transient),
        (503, Transient),
        (504, Transient),
        (529, Transient),
        (999, Transient),
    ],
)
def test_an_answer_is_classified_by_its_status(status, family):
    failure = classify_status(status, provider="acme", retry_after=2.0)
    assert type(failure) is family
    assert (failure.provider, failure.status) == ("acme", status)
    assert str(status) in str(failure)


@pytest.mark.parametrize("status", [402, 429, 500, 503])
def test_the_wait_the_provider_asks_for_is_kept(status):
    assert classify_status(status, provider="acme", retry_after=2.0).retry_after == 2.0


@pytest.mark.parametrize("status", [302, 303, 408, 409, 425, 499, 500, 501, 502, 504, 520, 524, 529, 999])
def test_an_ambiguous_status_of_a_paid_call_that_may_not_be_repeated_is_of_unknown_outcome(status):
    failure = classify_status(status, provider="acme", paid=True, idempotent=False)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    assert classify_status(status, provider="acme", paid=True).charged == "held"


@pytest.mark.parametrize("body", ["", '{"error": {"message": "The engine is currently overloaded"}}'])
def test_a_503_in_the_providers_own_words_or_without_any_is_a_refusal_and_safe_to_repeat(body):
    failure = classify_status(503, provider="acme", body=body, paid=True, idempotent=False)
    assert (type(failure), failure.outcome, failure.charged) == (Transient, "not_started", "no")


@pytest.mark.parametrize(
    "body",
    [
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: local reset",
        "<html><title>Application error</title></html>",
        "<!DOCTYPE html><html><head><title>503 Service Unavailable</title></head></html>",
        '{"error": {"code": 503, "message": "Deadline expired before operation could complete."}}',
        "upstream request timeout",
        "The origin timed out.",
        "Error 503 first byte timeout",
    ],
)
def test_a_503_in_a_proxys_words_leaves_open_whether_the_call_ran(body):
    failure = classify_status(503, provider="acme", body=body, paid=True, idempotent=False)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    assert type(classify_status(503, provider="acme", body=body)) is Transient


@pytest.mark.parametrize("reason", ["connection failure", "overflow"])
def test_a_proxy_that_never_passed_the_request_on_says_so(reason):
    body = f"upstream connect error or disconnect/reset before headers. reset reason: {reason}"
    failure = classify_status(503, provider="acme", body=body, paid=True, idempotent=False)
    assert (type(failure), failure.outcome, failure.charged) == (Transient, "not_started", "no")


class APITimeoutError(Exception):
    """As the clients of several providers raise it: a timeout of their own, with a status of their own."""

    status_code = 408


def test_a_clients_own_timeout_is_a_timeout_whatever_status_it_carries():
    timeout = APITimeoutError("Request timed out.")
    assert type(classify(timeout, provider="acme", paid=True, idempotent=False)) is OutcomeUnknown
    never_sent = classify(timeout, provider="acme", sent=False, paid=True, idempotent=False)
    assert (type(never_sent), never_sent.charged) == (ConnectionFailed, "no")
    answered = APITimeoutError("the server said so")
    answered.response = SimpleNamespace(status_code=408)  # type: ignore[attr-defined]
    assert classify(answered, provider="acme").status == 408


@pytest.mark.parametrize("status", [500, 501, 503, 505, 529, 999])
def test_an_error_that_its_provider_does_not_charge_holds_nothing_and_goes_on(status):
    failure = classify_status(status, provider="acme", paid=True, idempotent=False, uncharged=True)
    assert (type(failure), failure.charged, failure.retryable) == (Transient, "no", True)


@pytest.mark.parametrize("status", [302, 303, 408, 409, 425, 499, 502, 504, 520, 524, 527])
def test_what_a_proxy_may_have_said_is_unknown_whatever_the_provider_declares(status):
    failure = classify_status(status, provider="acme", paid=True, idempotent=False, uncharged=True)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")


def test_a_time_limit_that_ran_out_at_work_is_unknown_whatever_the_provider_declares():
    body = '{"error": {"code": 503, "message": "Deadline expired before operation could complete."}}'
    failure = classify_status(503, provider="acme", body=body, paid=True, idempotent=False, uncharged=True)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")


@pytest.mark.parametrize(
    ("headers", "body", "is_own"),
    [
        ({}, {"error": {"message": "internal"}}, True),
        ({}, {"type": "error", "error": {"type": "api_error"}}, True),
        ({}, {"detail": "it failed"}, True),
        ({"x-request-id": "r1"}, [], True),
        ({}, {}, False),
        ({}, [], False),
        ({"x-request-id": "r1"}, None, False),
        ({}, None, False),
    ],
)
def test_an_answer_is_the_providers_own_by_its_body_or_its_request_id(headers, body, is_own):
    assert is_own_answer(headers, body) is is_own


def test_a_conflict_of_a_paid_call_keeps_its_money_held():
    failure = classify_status(409, provider="acme", paid=True)
    assert (failure.outcome, failure.charged) == ("unknown", "held")


def test_a_success_cannot_be_classified_as_a_failure():
    with pytest.raises(ValueError, match="status 200 is not a failure"):
        classify_status(200, provider="acme")


@given(st.integers(min_value=300, max_value=10_000), st.text(), st.booleans(), st.booleans())
def test_whatever_a_provider_answers_is_some_family(status, body, paid, idempotent):
    failure = classify_status(status, provider="acme", body=body, paid=paid, idempotent=idempotent)
    assert isinstance(failure, CallFailed)
    assert not (paid and not idempotent and failure.retryable and failure.outcome == "unknown")


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (TimeoutError("network timeout"), True),
        (ConnectionRefusedError(), True),
        (classify_status(503, provider="acme"), True),
        (classify_status(429, provider="acme"), True),
        (RuntimeError("a temporary failure"), True),
        (ValueError("invalid input"), False),
        (TypeError("invalid input"), False),
        (classify_status(401, provider="acme"), False),
        (RuntimeError("Unauthorized"), False),
        (RuntimeError("Insufficient funds"), False),
        (BudgetExceeded(needed=Micros(2), available=Micros(1), cap="run"), False),
        (RuntimeError("Budget exceeded"), False),
        (classify_status(400, provider="acme"), False),
        (RuntimeError("400 Bad Request"), False),
        (BreakerOpen("acme", retry_after=1.0), True),
        (RuntimeError("boom"), False),
    ],
    ids=repr,
)
def test_the_table_of_retryable_errors_holds_row_by_row(error, retryable):
    assert is_retryable_error(error) is retryable
