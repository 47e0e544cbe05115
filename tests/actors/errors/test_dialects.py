"""The table of dialects row by row, what it must not override, and the seed's own table of errors."""

from __future__ import annotations

import asyncio
import json
import tomllib
from importlib import resources

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors.bodies import error_in_body
from actors.errors.classification import classify_status
from actors.errors.dialects import FAMILIES, Dialect, dialects, read_dialects
from actors.errors.exceptions import classify, is_retryable_error
from actors.errors.families import (
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

ROWS = dialects().rows
STATUSES = dialects().statuses


def body_of(marker: str) -> str:
    return json.dumps({"error": {"code": marker.upper(), "message": "no"}})


def speaker_of(row: Dialect) -> str:
    return row.only[0].replace("*", "") if row.only else "acme"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.status} {row.marker}")
def test_each_row_holds_for_its_status_and_its_marker(row: Dialect):
    failure = classify_status(row.status, provider=speaker_of(row), body=body_of(row.marker), retry_after=3.0)
    assert type(failure) is row.means
    assert (failure.status, failure.retry_after) == (row.status, 3.0)
    assert row.marker in str(failure)
    assert type(classify_status(404, provider=speaker_of(row), body=body_of(row.marker))) is Permanent


@pytest.mark.parametrize("row", [row for row in ROWS if row.only], ids=lambda row: f"{row.only} {row.marker}")
def test_a_row_of_certain_providers_applies_to_no_others_and_to_their_hosts_too(row: Dialect):
    assert not row.applies_to("acme", "api.acme.example")
    for pattern in row.only:
        name = pattern.replace("*", "x")
        assert row.applies_to(name.upper())
        assert row.applies_to("acme", name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.status} {row.marker}")
def test_a_paid_call_is_only_repeated_if_the_row_says_that_it_never_began(row: Dialect):
    failure = classify_status(
        row.status, provider=speaker_of(row), body=body_of(row.marker), paid=True, idempotent=False
    )
    if row.means is Transient and not row.refused:
        assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    else:
        assert (type(failure), failure.outcome, failure.charged) == (row.means, "not_started", "no")


def test_no_row_hides_another_and_every_row_names_its_source():
    table = tomllib.loads(resources.files("actors.errors").joinpath("dialects.toml").read_text(encoding="utf-8"))
    assert all(row["seen_at"] for row in table["dialect"])
    for position, row in enumerate(ROWS):
        before = [
            earlier
            for earlier in ROWS[:position]
            if earlier.status == row.status and earlier.marker in row.marker and earlier.only in {(), row.only}
        ]
        assert before == []


CREDIT = "Your credit balance is too low to access the API."
OVER_QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.mark.parametrize(
    ("provider", "status", "body", "family"),
    [
        ("openai", 429, f'{{"error": {{"code": "insufficient_quota", "message": "{OVER_QUOTA}"}}}}', QuotaExhausted),
        ("openai", 429, '{"error": {"code": "rate_limit_exceeded"}}', Throttled),
        ("openai", 503, '{"error": {"message": "Slow Down"}}', Throttled),
        ("anthropic", 400, f'{{"error": {{"type": "invalid_request_error", "message": "{CREDIT}"}}}}', QuotaExhausted),
        ("anthropic", 529, '{"type": "error", "error": {"type": "overloaded_error"}}', Transient),
        ("anthropic", 429, '{"error": {"type": "rate_limit_error"}}', Throttled),
        ("gemini", 429, f'{{"error": {{"status": "RESOURCE_EXHAUSTED", "message": "{OVER_QUOTA}"}}}}', Throttled),
        ("vertex", 429, '{"error": {"message": "Quota exceeded for aiplatform.googleapis.com"}}', Throttled),
        ("gemini", 400, '{"error": {"status": "FAILED_PRECONDITION", "message": "Enable billing"}}', QuotaExhausted),
        ("gemini", 400, '{"error": {"status": "INVALID_ARGUMENT"}}', Permanent),
        ("azure-eu", 429, '{"error": {"message": "exceeded token rate limit of your current tier"}}', Throttled),
        ("bedrock", 429, '{"message": "ThrottlingException: exceeding the account quotas"}', Throttled),
        ("bedrock", 400, '{"__type": "com.amazon.coral.service#ThrottlingException"}', Throttled),
        ("bedrock", 400, '{"__type": "ServiceQuotaExceededException"}', QuotaExhausted),
        ("bedrock", 400, '{"__type": "ValidationException"}', Permanent),
        ("bedrock", 429, '{"__type": "ModelNotReadyException"}', Transient),
        ("mistral", 429, '{"message": "Service tier capacity exceeded for this model."}', Throttled),
        ("mistral", 429, '{"message": "Monthly usage limit reached"}', QuotaExhausted),
        ("cohere", 429, '{"message": "Trial keys are limited to 1000 API calls / month"}', QuotaExhausted),
        ("cohere", 429, '{"message": "Trial keys are limited to 20 API calls / minute"}', Throttled),
        ("acme", 402, "", QuotaExhausted),
        ("acme", 400, "insufficient balance", QuotaExhausted),
        ("acme", 400, "the temperature must be below 2", Permanent),
    ],
)
def test_what_a_provider_says_is_understood_in_its_own_dialect(provider, status, body, family):
    assert type(classify_status(status, provider=provider, body=body)) is family


def test_the_same_words_are_an_unpaid_bill_here_and_a_busy_minute_there():
    kinds = [type(classify_status(429, provider=name, body=OVER_QUOTA)) for name in ("openai", "acme", "gemini-pro")]
    assert kinds == [QuotaExhausted, QuotaExhausted, Throttled]
    at_google = classify_status(429, provider="acme", host="generativelanguage.googleapis.com", body=OVER_QUOTA)
    assert type(at_google) is Throttled


# The table of the page, by status, by type, and by text if there is nothing else.


class ClientError(Exception):
    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        # Network timeout.
        (TimeoutError(), True),
        (classify_status(408, provider="acme"), True),
        (classify_status(504, provider="acme"), True),
        (RuntimeError("network timeout"), True),
        # Connection refused.
        (ConnectionRefusedError(), True),
        (ConnectionFailed("acme", "refused"), True),
        (RuntimeError("connection refused"), True),
        # 503 Service Unavailable.
        (classify_status(503, provider="acme"), True),
        (ClientError("down", 503), True),
        (RuntimeError("503 Service Unavailable"), True),
        # 429 Too Many Requests.
        (classify_status(429, provider="acme"), True),
        (ClientError("slow down", 429), True),
        (RuntimeError("429 Too Many Requests"), True),
        # "temporary" in the message.
        (RuntimeError("a temporary failure"), True),
        # Invalid input.
        (ValueError("input"), False),
        (TypeError("input"), False),
        (classify_status(422, provider="acme"), False),
        (RuntimeError("Invalid input"), False),
        # Unauthorized.
        (classify_status(401, provider="acme"), False),
        (ClientError("who?", 401), False),
        (RuntimeError("Unauthorized"), False),
        # Insufficient funds.
        (classify_status(402, provider="acme"), False),
        (classify_status(429, provider="acme", body="insufficient funds"), False),
        (RuntimeError("Insufficient funds"), False),
        # Budget exceeded.
        (BudgetExceeded(needed=2, available=1, cap="run"), False),
        (RuntimeError("Budget exceeded"), False),
        # 400 Bad Request.
        (classify_status(400, provider="acme"), False),
        (ClientError("what?", 400), False),
        (RuntimeError("400 Bad Request"), False),
    ],
    ids=repr,
)
def test_the_table_of_the_page_holds_row_by_row(error, retryable):
    assert is_retryable_error(error) is retryable


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (ValueError("a temporary timeout: 429 too many requests"), Permanent),
        (ClientError("temporarily unavailable, insufficient funds", 401), Permanent),
        (ClientError("unauthorized: invalid input", 503), Transient),
        (TimeoutError("unauthorized"), Transient),
        (ConnectionRefusedError("insufficient funds"), ConnectionFailed),
    ],
    ids=repr,
)
def test_text_never_overrides_what_type_or_status_says(error, family):
    assert type(classify(error, provider="acme")) is family


def test_what_lies_beyond_the_beginning_of_a_body_is_not_searched():
    assert type(classify_status(429, provider="acme", body=" " * 5_000 + "insufficient_quota")) is Throttled


# Errors inside a success.


@pytest.mark.parametrize(
    ("error", "family"),
    [
        ({"code": 429}, Throttled),
        ({"code": "429"}, Throttled),
        ({"code": 429, "type": "insufficient_quota"}, QuotaExhausted),
        ({"code": 502}, Transient),
        ({"status": 400, "message": CREDIT}, QuotaExhausted),
        ({"code": None, "type": "invalid_request_error", "message": "no"}, Permanent),
        ({"type": "overloaded_error"}, Transient),
        ({"status": "RESOURCE_EXHAUSTED"}, Throttled),
        ({"__type": "com.amazon.coral.service#ThrottlingException"}, Throttled),
        ({"code": "insufficient_quota"}, QuotaExhausted),
        ("Rate-Limit Exceeded", Throttled),
        ("a temporary problem", Transient),
        ({"message": "unauthorized"}, Permanent),
        ({"code": 7}, Unclassified),
        (["odd"], Unclassified),
        ("odd", Unclassified),
    ],
    ids=str,
)
def test_an_error_inside_a_success_is_classified_as_if_it_were_one_of_its_own(error, family):
    for body in ({"error": error}, json.dumps({"error": error}), json.dumps({"error": error}).encode()):
        failure = error_in_body(body, provider="acme", retry_after=2.0)
        assert failure is not None
        assert type(failure) is family
        assert failure.provider == "acme"


@pytest.mark.parametrize("word", sorted(STATUSES))
def test_each_word_stands_for_its_status(word):
    failure = error_in_body({"error": {"type": word}}, provider="acme")
    assert failure is not None
    assert failure.status == STATUSES[word]
    assert 300 <= STATUSES[word] <= 599


@pytest.mark.parametrize(
    "body",
    [
        b"",
        "{oops",
        "[1]",
        b'"error"',
        "null",
        "[" * 100_000,
        {},
        {"error": None},
        {"error": {}},
        {"error": ""},
        None,
        7,
    ],
    ids=lambda body: repr(body)[:20],
)
def test_a_success_without_an_error_is_none(body):
    assert error_in_body(body) is None


def test_an_unknown_error_of_a_paid_call_that_may_not_be_repeated_is_of_unknown_outcome():
    for error in ("odd", {"code": 500}):
        failure = error_in_body({"error": error}, paid=True, idempotent=False)
        assert type(failure) is OutcomeUnknown
        assert failure.charged == "held"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "code", "type", "x"]), inner),
    )
)
def test_whatever_json_arrives_is_an_error_or_none(body):
    failure = error_in_body(json.dumps(body))
    assert failure is None or isinstance(failure, CallFailed)


# The file.


def test_the_file_is_read_once_and_without_a_running_loop():
    assert dialects() is dialects()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


ROW = '[[dialect]]\nstatus = {status}\nmarker = "{marker}"\nmeans = "{means}"\n{more}\n[statuses]\nbusy = 503\n'


def test_a_table_of_ones_own_can_be_read():
    table = read_dialects(ROW.format(status=418, marker="TeaPot", means="Throttled", more='only = ["*tea*"]'))
    assert table.rows == (Dialect(418, "teapot", Throttled, ("*tea*",)),)
    assert table.find(418, "a TEAPOT", provider="green-tea") == table.rows[0]
    assert table.find(418, "a teapot", provider="coffee") is None
    assert table.status_of("BUSY") == 503
    assert table.status_of("idle") is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"status": 200}, "from 300 to 999, got 200"),
        ({"marker": ""}, "marker must not be empty"),
        ({"means": "Annoying"}, f"one of {', '.join(FAMILIES)}, got 'Annoying'"),
        ({"more": 'mark = "x"'}, "unknown field `mark`"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_by_name(changes, says):
    row = {"status": 429, "marker": "x", "means": "Throttled", "more": ""} | changes
    with pytest.raises(msgspec.ValidationError, match=says):
        read_dialects(ROW.format(**row))
