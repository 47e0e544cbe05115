"""The table of dialects row by row, what it must not override, and the seed's own table of errors."""

from __future__ import annotations

import asyncio
import json
import tomllib
from importlib import resources
from typing import Any

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
from actors.errors.wording import Wording
from actors.money import Micros

ROWS = dialects().rows
STATUSES = dialects().statuses


def speaker_of(row: Dialect) -> str:
    return row.only[0].replace("*", "") if row.only else "acme"


def status_for(row: Dialect) -> int:
    return min(row.statuses, default=418)


def headers_of(row: Dialect) -> dict[str, str]:
    return {row.header: "x"} if row.header else {}


def spoken(row: Dialect, code: str, *, status: int | None = None, **options: Any) -> CallFailed:
    body = json.dumps({"error": {"code": f"{code.upper()}Exception", "message": "no"}})
    status = status_for(row) if status is None else status
    return classify_status(status, provider=speaker_of(row), body=body, headers=headers_of(row), **options)


CODES = [(row, code) for row in ROWS for code in sorted(row.codes)]


@pytest.mark.parametrize(("row", "code"), CODES, ids=lambda one: one if isinstance(one, str) else "")
def test_each_code_means_what_its_row_says(row: Dialect, code: str):
    failure = spoken(row, code, retry_after=3.0)
    assert type(failure) is row.means
    assert (failure.status, failure.retry_after) == (status_for(row), 3.0)
    assert row.says in str(failure)
    if isinstance(failure, Permanent):
        assert (failure.scope, failure.concerns) == (row.scope, row.concerns)


@pytest.mark.parametrize(("row", "code"), CODES, ids=lambda one: one if isinstance(one, str) else "")
def test_a_paid_call_is_only_repeated_if_the_row_says_that_it_never_began(row: Dialect, code: str):
    failure = spoken(row, code, paid=True, idempotent=False)
    if row.means is Transient and not row.refused:
        assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    else:
        assert (type(failure), failure.charged) == (row.means, row.charged or "no")


@pytest.mark.parametrize(("row", "code"), CODES, ids=lambda one: one if isinstance(one, str) else "")
def test_no_code_denies_a_call_of_which_a_proxy_may_speak(row: Dialect, code: str):
    for status in {408, 409, 499, 504, 524} - row.statuses:
        failure = spoken(row, code, status=status, paid=True, idempotent=False)
        assert (type(failure), failure.charged) == (OutcomeUnknown, "held")


@pytest.mark.parametrize("row", [row for row in ROWS if row.only], ids=lambda row: f"{row.only} {row.says}")
def test_a_row_of_certain_providers_applies_to_no_others_and_to_their_hosts_too(row: Dialect):
    assert not row.applies_to("acme", "api.acme.example")
    for pattern in row.only:
        name = pattern.replace("*", "x")
        assert row.applies_to(name.upper())
        assert row.applies_to("acme", name)


def test_no_code_hides_another_and_every_row_names_its_source():
    table = tomllib.loads(resources.files("actors.errors").joinpath("dialects.toml").read_text(encoding="utf-8"))
    assert all(row["seen_at"] for row in table["dialect"])
    for position, row in enumerate(ROWS):
        for earlier in ROWS[:position]:
            if earlier.only not in {(), row.only} or earlier.header:
                continue
            if not earlier.statuses or (row.statuses and row.statuses <= earlier.statuses):
                assert row.codes & earlier.codes == set()


@given(st.text(), st.integers(300, 999))
def test_what_a_request_is_quoted_with_is_not_searched(text: str, status: int):
    body = json.dumps({"detail": [{"type": "missing", "msg": "needed", "input": text + " insufficient_quota"}]})
    assert not isinstance(classify_status(status if status != 402 else 400, provider="acme", body=body), QuotaExhausted)


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


@pytest.mark.parametrize(
    ("host", "status", "body"),
    [
        ("api.openai.com", 429, {"error": {"code": "billing_not_active", "message": "Your account is not active"}}),
        ("openrouter.ai", 403, {"error": {"code": 403, "message": "Key limit exceeded (total limit)."}}),
        ("api.x.ai", 403, {"code": "permission-denied", "error": "Your team has used all available credits."}),
        ("api.x.ai", 429, {"code": "exhausted", "error": "Your team reached its monthly spending limit."}),
        ("api.moonshot.ai", 429, {"error": {"type": "exceeded_current_quota_error", "message": "suspended"}}),
        ("open.bigmodel.cn", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
        ("gateway.example", 429, {"error": {"code": "1", "message": "余额不足或无可用资源包,请充值。"}}),
        ("api.z.ai", 429, {"type": "error", "error": {"type": "1113", "message": "no resource package"}}),
        ("api.minimax.io", 500, {"error": {"type": "api_error", "message": "insufficient balance (1008)"}}),
        ("dashscope.aliyuncs.com", 400, {"code": "Arrearage", "message": "Access denied, be in good standing."}),
        (
            "generativelanguage.googleapis.com",
            429,
            {"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"reason": "INSUFFICIENT_G1_CREDITS_BALANCE"}]}},
        ),
        ("proxy.example", 429, {"error": {"type": "budget_exceeded", "code": "429", "message": "exceeded budget"}}),
        ("api.vendor.example", 403, {"code": "INSUFFICIENT_BALANCE", "message": "Insufficient account balance"}),
        ("api.fireworks.ai", 412, {"error": {"message": "Account x is suspended: failure to pay past invoices"}}),
        ("api.vendor.example", 418, {"errors": [{"title": "Out of credits", "status": "418"}]}),
        ("api.vendor.example", 400, "<Error><Code>InsufficientFunds</Code><Message>no</Message></Error>"),
    ],
)
def test_an_account_without_money_is_understood_in_whatever_status_and_words(host, status, body):
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    failure = classify_status(status, provider="alder", host=host, body=text, paid=True, idempotent=False)
    assert (type(failure), failure.outcome, failure.charged) == (QuotaExhausted, "not_started", "no")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "server_error", "message": "could not translate 'insufficient balance, invalid api key'"}},
        {"error": {"message": "failed", "input": "insufficient_quota"}},
        "Traceback: insufficient_quota in the prompt; rate_limit_exceeded",
        {"message": "worker died while it wrote: model not found"},
    ],
)
def test_what_a_500_quotes_from_a_request_that_ran_denies_nothing(body):
    text = body if isinstance(body, str) else json.dumps(body)
    failure = classify_status(500, provider="alder", body=text, paid=True, idempotent=False)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")


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
        (BudgetExceeded(needed=Micros(2), available=Micros(1), cap="run"), False),
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
        (ClientError("temporarily unavailable", 401), Permanent),
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
    failure = error_in_body({"error": {"code": -int(word) if word.isdigit() else word}}, provider="acme")
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


ROW = """
[[dialect]]
status = [{status}]
codes = ["{code}"]
means = "{means}"
seen_at = "a table of ones own"
{more}
[statuses]
busy = 503
"""


def test_a_table_of_ones_own_can_be_read():
    table = read_dialects(ROW.format(status=418, code="TeaPot", means="Throttled", more='only = ["*tea*"]'))
    assert table.rows == (Dialect(Throttled, frozenset({"teapot"}), statuses=frozenset({418}), only=("*tea*",)),)
    wording = Wording.of('{"code": "tea_pot"}')
    assert table.find(418, wording, provider="green-tea") == table.rows[0]
    assert table.find(418, wording, provider="coffee") is None
    assert table.status_of("BUSY") == 503
    assert table.status_of("idle") is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"status": 200}, "from 300 to 999, got 200"),
        ({"code": ""}, "give codes or words, none of them empty"),
        ({"means": "Annoying"}, f"one of {', '.join(FAMILIES)}, got 'Annoying'"),
        ({"more": 'concerns = "weather"'}, "concerns must be one of key, .*, got 'weather'"),
        ({"more": 'scope = "world"'}, "Invalid enum value 'world'"),
        ({"more": 'mark = "x"'}, "unknown field `mark`"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_by_name(changes, says):
    row = {"status": 429, "code": "x", "means": "Throttled", "more": ""} | changes
    with pytest.raises(msgspec.ValidationError, match=says):
        read_dialects(ROW.format(**row))


@pytest.mark.parametrize(
    ("body", "family"),
    [
        ({"errorType": "Runtime.ExitError", "errorMessage": "exited with status 1"}, OutcomeUnknown),
        ('{"errors": [{"message": "no", "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}]}', Permanent),
        ("<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>", Throttled),
    ],
)
def test_a_body_that_is_an_error_as_a_whole_is_found(body, family):
    assert type(error_in_body(body, paid=True, idempotent=False)) is family
