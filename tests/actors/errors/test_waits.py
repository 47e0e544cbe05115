"""Waits are heard wherever providers tell them, and nothing that they send makes an endless one."""

import json
import math
import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors.bodies import error_in_body
from actors.errors.classification import classify_status
from actors.errors.exceptions import classify
from actors.errors.families import MAX_RETRY_AFTER, Permanent, QuotaExhausted, Throttled, Transient
from actors.errors.waits import MAX_READ, is_day_spent, retry_after_of, wait_names
from actors.limits.reported import ReportedLimit
from tests.proofs import repeated

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(seconds=30)


def told(headers=None, body="", **known):
    return retry_after_of(headers or {}, body, now=NOW, **known)


def endless() -> list[object]:
    inner: list[object] = []
    inner.append(inner)
    return inner


def of_google(quota: str, delay: str | None = None) -> str:
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}]
    if delay is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return json.dumps({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("1m30s", 90.0),
        ("30 seconds", 30.0),
        ("Tue, 01 Jan 2030 12:00:30 GMT", 30.0),
        ("Tue, 01 Jan 2030 12:00:30 -0000", 30.0),
        ("Tue, 01 Jan 2030 13:00:30 +0100", 30.0),
        ("Tue, 01 Jan 2030 11:00:00 GMT", 0.0),
        ("2030-01-01T12:00:30Z", 30.0),
        (str(int(SOON.timestamp())), 30.0),
        ("99999999999999999", MAX_RETRY_AFTER),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("1e999", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_seconds_a_duration_or_a_moment(value, seconds):
    assert told({"Retry-After": value}) == seconds


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)), st.integers(-12, 14))  # noqa: DTZ001 - aware below.
def test_a_date_in_any_zone_is_the_time_that_is_left(moment, hours):
    moment = moment.replace(microsecond=0, tzinfo=timezone(timedelta(hours=hours)))
    left = (moment - NOW).total_seconds()
    assert told({"retry-after": format_datetime(moment)}) == min(max(0.0, left), MAX_RETRY_AFTER)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "850", "retry-after": "1"}, 0.85),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "7", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20s"}, 7.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12ms"}, 0.012),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining-requests-day": "0", "x-ratelimit-reset-requests-day": "33011.3"}, 33011.3),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{SOON.timestamp():.0f}"}, 30.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{SOON.timestamp() * 1000:.0f}"}, 30.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "0.35"}, 0.35),
        (
            {
                "anthropic-ratelimit-requests-remaining": "9",
                "anthropic-ratelimit-requests-reset": "2030-01-01T12:00:01Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2030-01-01T12:00:42.5Z",
            },
            42.5,
        ),
        ({"anthropic-ratelimit-unified-reset": f"{SOON.timestamp():.0f}"}, 30.0),
        ({"x-rate-limit-reset-tokens": "17"}, 17.0),
        ({"ratelimit": '"default";r=0;t=12'}, 12.0),
        ({"x-ratelimit-remaining-images": "0", "x-ratelimit-reset-images": "9s"}, 9.0),
        # What is left is not what has to be waited for.
        ({"x-ratelimit-remaining-requests": "4999", "x-ratelimit-reset-requests": "12ms"}, None),
        # Azure sends -1 for a limit that it does not keep.
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "5"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0"}, None),
    ],
    ids=str,
)
def test_a_header_tells_the_wait_until_the_limit_that_is_used_up(headers, seconds):
    assert told(headers, status=429) == seconds


def test_every_limit_that_is_used_up_has_to_come_back():
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "20s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-remaining-project-tokens": "5",
        "x-ratelimit-reset-project-tokens": "1h0m0s",
    }
    assert told(headers) == 360.0


def test_a_reset_beside_a_failure_that_is_no_throttling_is_no_wait():
    headers = {"x-ratelimit-limit": "60", "x-ratelimit-reset": "3000"}
    assert (told(headers, status=429), told(headers), told(headers, status=500)) == (3000.0, 3000.0, None)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (of_google("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "45.837906927s"), 45.837906927),
        ({"details": [{"retryDelay": {"seconds": "45", "nanos": 500_000_000}}]}, 45.5),
        ([{"error": {"details": [{"retryDelay": "36s"}]}}], 36.0),
        ({"error": "Model x is currently loading", "estimated_time": 20.0}, 20.0),
        ({"error": {"code": 403, "metadata": {"resets_at": "2030-01-01T13:00:00Z"}}}, 3600.0),
        ({"error": {"type": "usage_limit_reached", "resets_at": SOON.timestamp(), "resets_in_seconds": 30}}, 30.0),
        ({"resets_at": SOON.timestamp() * 1000}, 30.0),
        ({"message": "You are being rate limited.", "retry_after": 0.65, "global": False}, 0.65),
        ({"error": {"retryAfter": "2m"}}, 120.0),
        ({"error": {"retry_after_ms": 850}}, 0.85),
        ({"error": {"retryAfterMs": "850"}}, 0.85),
        ({"error": {"retryAfter": 5, "estimated_time": 9}}, 9.0),
        ({"error": {"metadata": {"headers": {"X-RateLimit-Reset": f"{SOON.timestamp() * 1000:.0f}"}}}}, 30.0),
        ({"error": {"message": '{\n "details": [{"retryDelay": "26s"}]}'}}, 26.0),
        ("Error code: 429 - {'error': {'details': [{'retryDelay': '36s'}]}}", 36.0),
        (b'{"error": {"retry_after": 3', 3.0),
        (b"\xef\xbb\xbf" + b'{"retry_after": 3}', 3.0),
        ({"retry_after": -5}, None),
        ({"retry_after": "NaN"}, None),
        ({"retry_after": math.inf}, None),
        ({"retry_after": True}, None),
        ({"retry_after": 10**300}, MAX_RETRY_AFTER),
        ('{"retry_after": 1e999}', None),
        ({"retry_after": None, "resets_at": "soon"}, None),
    ],
    ids=str,
)
def test_a_field_of_the_body_tells_the_wait(body, seconds):
    assert told(body=body) == seconds


@pytest.mark.parametrize(
    ("prose", "seconds"),
    [
        ("Rate limit reached on tokens per minute (TPM): Limit 6000, Used 5034. Please try again in 4.77s.", 4.77),
        ("Please try again in 7m12.5s. Visit https://example.com to learn more.", 432.5),
        ("Try again in 1m30s", 90.0),
        ("Please try again in 9m38.016s.", 578.016),
        ("Please try again in 850ms", 0.85),
        ("Please retry in 36.429760048s.", 36.429760048),
        ("Please retry in 10h23m14s", 37_394.0),
        ("Rate limit is exceeded. Try again in 2 seconds.", 2.0),
        ("have exceeded the token rate limit. Please retry after 45 seconds.", 45.0),
        ("Please retry after 86400 seconds.", 86_400.0),
        ("Please retry your request after 20 seconds", 20.0),
        ("retry in 20 minutes", 1200.0),
        ("Your quota will reset after 6h23m.", 22_980.0),
        ("Your limit resets in 2 hours and 5 minutes", 7500.0),
        ("Try again in 1 day, 3 hours", 97_200.0),
        ("please wait 30 seconds", 30.0),
        ("Please wait at least 5 minutes before you try again", 300.0),
        ("Try again in about a minute", 60.0),
        ("try again in ~5 min", 300.0),
        ("The service will be available again in 1 hour", 3600.0),
        ("You can request again in 45 sec.", 45.0),
        ("Come back in 1 min 30 sec", 90.0),
        ("retry after: 30s", 30.0),
        ("Wait time: 12.3s", 12.3),
        ("The current wait time is 30 seconds", 30.0),
        ("Access will be restored in 2 hours", 7200.0),
        ("cooldown: 20 seconds", 20.0),
        ("Retry-After: 30", 30.0),
        ("retry after 45.", 45.0),
        ("You will regain access on 2030-01-02 at 00:00 UTC.", 43_200.0),
        ("The limit resets at 2030-01-01T13:00:00Z", 3600.0),
        ("limit resets at: 2030-01-01T13:00:00+0000", 3600.0),
        ("Try again after 2030-01-02", 43_200.0),
        ("You regained access on 2029-12-01 at 00:00 UTC.", None),
        ("retry after 3 attempts", None),
        ("Too many requests: 5 per 1 minute", None),
        ("Your access token expired 3 minutes ago", None),
        ("The request took 30 seconds, try a smaller one", None),
        ("temporarily unavailable: 5 of 20 hosts are down", None),
        ("Please slow down. 60 s is the limit of your prompt.", None),
        ("try again in -5 s", None),
        ("try again in 99999999999 s", None),
        ("try again in 5 business days", None),
        ("Too many tokens, please wait before trying again.", None),
        ("", None),
    ],
)
def test_prose_tells_the_wait(prose, seconds):
    assert told(body=prose) == pytest.approx(seconds)
    assert told(body={"error": {"message": prose, "code": 429}}) == pytest.approx(seconds)
    assert told(body=json.dumps({"error": {"message": prose}})) == pytest.approx(seconds)


def test_a_header_comes_before_a_field_and_a_field_before_prose():
    body = {"error": {"message": "Please try again in 1m30s", "retry_after": 20}}
    assert told({"retry-after": "7"}, body) == 7.0
    assert told({"retry-after": "soon"}, body) == 20.0
    assert told(body=body | {"error": {"message": "Please try again in 1m30s", "retry_after": -1}}) == 90.0


@pytest.mark.parametrize("name", wait_names().headers)
def test_every_header_of_the_table_is_read(name):
    assert told({name.title(): "3000"}) == (3.0 if wait_names().headers[name] == "ms" else 3000.0)


@pytest.mark.parametrize("name", wait_names().fields)
def test_every_field_of_the_table_is_read(name):
    seconds = 3.0 if wait_names().fields[name] == "ms" else 3000.0
    assert told(body={"error": {name: 3000}}) == seconds
    assert told(body=f"{{'{name}': '3000', ...") == seconds


@pytest.mark.parametrize(
    "body",
    [endless(), object(), {1.5: 2}, {"a": {object(): 1}}, "\ud800", b"\xff", None],
    ids=["endless", "object", "float key", "object key", "surrogate", "no UTF-8", "None"],
)
def test_a_body_that_is_no_json_tells_nothing(body):
    assert told(body=body) is None
    assert not is_day_spent({}, body, None, now=NOW)


def test_a_now_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        retry_after_of({}, "", now=NOW.replace(tzinfo=None))


TEXTS = (
    st.text(st.characters(), max_size=60)
    | st.text(alphabet="0123456789.:-+TZ smhdnµ", max_size=40)
    | st.builds(
        "{}{}{}".format, st.sampled_from(["retry in ", "resets at ", "retry_after: "]), st.integers(), st.text()
    )
    | st.builds(str, st.floats() | st.integers())
)
NAMES = st.sampled_from([*wait_names().headers, "ratelimit", "x-ratelimit-reset", "x-ratelimit-remaining", "é"])
FIELDS = st.sampled_from([*wait_names().fields, "headers", "message", "seconds", "nanos"]) | st.text(max_size=5)
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.builds(object),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, TEXTS, max_size=4), VALUES | st.binary() | VALUES.map(repr))
@settings(max_examples=repeated(5_000))
def test_whatever_is_told_the_wait_is_none_or_finite_and_bounded(headers, body):
    wait = told(headers, body)
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER
    assert is_day_spent(headers, body, wait, now=NOW) in {True, False}


@pytest.mark.parametrize(
    "text",
    [
        "retry " * MAX_READ,
        "retry in 1" * MAX_READ,
        "wait 1 m 1 m 1 m 1 m 1 m" * MAX_READ,
        "1" * MAX_READ,
        "per " * MAX_READ,
        "quotaid:" * MAX_READ,
        "resets at 2030-01-01 at " * MAX_READ,
        " " * MAX_READ,
        "[" * MAX_READ,
        json.dumps([{"retry_after": "x"}] * 20_000),
        "daily a" * MAX_READ,
        "again " * MAX_READ,
        "wait time:" * MAX_READ,
        "come back in about " * MAX_READ,
    ],
    ids=lambda text: text[:12],
)
def test_a_hostile_text_takes_no_long_time(text):
    started = time.process_time()
    told({"retry-after": text, "x-ratelimit-reset": text}, text)
    told(body=[text] * 5)
    is_day_spent({}, text, None, now=NOW)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("body", "family", "seconds"),
    [
        (of_google("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "45.8s"), Throttled, 45.8),
        (of_google("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), Throttled, None),
        (of_google("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), QuotaExhausted, None),
        # The wait of a minute does not bring a day's quota back.
        (of_google("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "36s"), QuotaExhausted, None),
        ('{"error": {"details": [{"metadata": {"quota_limit": "Gemini25ProRequestsPerDay"}}]}}', QuotaExhausted, None),
        ("limit 'Gemini 2.5 Pro Requests per day per user per tier'", QuotaExhausted, None),
        ("on tokens per day (TPD): Limit 100000, Used 97050. Please try again in 9m38.016s.", Throttled, 578.016),
        ("on tokens per day (TPD): Limit 100000, Used 97050.", QuotaExhausted, None),
        ("on requests per day (RPD): Limit 200, Used 200", QuotaExhausted, None),
        ("on requests per min (RPM): Limit 3. Add a card to reach 10,000 per day.", Throttled, None),
        ("on tokens per minute (TPM): Limit 6000", Throttled, None),
        ("Rate limit exceeded: free-models-per-day", QuotaExhausted, None),
        ("Rate limit exceeded: free-models-per-min", Throttled, None),
        ("Too many tokens per day, please wait before trying again.", QuotaExhausted, None),
        ("Too many tokens, please wait before trying again.", Throttled, None),
        ("You have hit your daily request limit", QuotaExhausted, None),
        ("have exceeded the token rate limit of your pricing tier. Please retry after 45 seconds.", Throttled, 45.0),
        ("", Throttled, None),
    ],
    ids=str,
)
def test_a_quota_of_a_day_is_told_from_one_of_a_minute(body, family, seconds):
    for failure in (
        classify_status(429, provider="acme", body=body),
        classify_status(429, provider="gemini", body=body, host="generativelanguage.googleapis.com"),
        error_in_body({"error": {"code": 429, "message": body}}, provider="acme"),
    ):
        assert (type(failure), failure.retry_after) == (family, pytest.approx(seconds))
        assert (failure.outcome, failure.charged) == ("not_started", "no")


@pytest.mark.parametrize(
    ("headers", "host", "family"),
    [
        ({"x-ratelimit-remaining-requests-day": "0"}, None, QuotaExhausted),
        ({"x-ratelimit-remaining-tokens-month": "0"}, None, QuotaExhausted),
        ({"x-ratelimit-remaining-requests": "0"}, "api.groq.com", QuotaExhausted),
        ({"x-ratelimit-remaining-tokens": "0"}, "api.groq.com", Throttled),
        ({"x-ratelimit-remaining-requests": "0"}, "api.openai.com", Throttled),
        ({"x-ratelimit-remaining-requests-day": "3"}, None, Throttled),
        ({"x-ratelimit-remaining-req-minute": "0"}, None, Throttled),
    ],
    ids=str,
)
def test_a_limit_of_a_day_that_is_used_up_is_a_quota_of_a_day(headers, host, family):
    assert type(classify_status(429, provider="acme", host=host, headers=headers)) is family


def test_a_kind_that_stands_in_a_header_alone_is_classified():
    headers = {"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/coral/"}
    assert type(classify_status(400, provider="acme", headers=headers, body='{"message": "no"}')) is Throttled


def test_the_wait_of_a_status_is_that_of_its_headers_and_its_body():
    body = '{"error": {"message": "Please try again in 4.77s"}}'
    assert classify_status(429, provider="acme", body=body).retry_after == 4.77
    assert classify_status(429, provider="acme", body=body, headers={"Retry-After": "7"}).retry_after == 7.0
    assert classify_status(429, provider="acme", body=body, retry_after=9.0).retry_after == 9.0


def test_an_error_of_which_only_the_text_is_known_has_its_wait():
    failure = error_in_body({"error": "temporarily overloaded, try again in 20 s"}, provider="acme")
    assert (type(failure), failure.retry_after) == (Transient, 20.0)


@pytest.mark.parametrize(
    ("text", "family", "seconds"),
    [
        ("too many requests: please try again in 4.77s", Throttled, 4.77),
        ("too many requests per day", QuotaExhausted, None),
        ("service unavailable, retry in 20 minutes", Transient, 1200.0),
        ("bad request: wait 5 s", Permanent, None),
    ],
)
def test_an_exception_of_which_only_the_text_is_known_has_its_wait(text, family, seconds):
    failure = classify(RuntimeError(text), provider="acme")
    assert (type(failure), failure.retry_after) == (family, seconds)


def test_the_answer_that_an_exception_carries_tells_the_limit_of_a_day():
    class RateLimitError(Exception):
        response = SimpleNamespace(
            status_code=429,
            headers={"x-ratelimit-limit-requests": "1000", "x-ratelimit-remaining-requests": "0"},
            text='{"error": {"message": "Rate limit reached"}}',
        )

    failure = classify(RateLimitError(), provider="groq")
    assert type(failure) is QuotaExhausted
    assert failure.limits == (ReportedLimit(limit=1000, remaining=0, window=86_400.0),)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Out of call volume quota. Quota will be replenished in 5.03:23:11.", 5 * 86_400 + 12_191),
        ("Quota will be replenished in 00:00:42.", 42),
        ("You have exceeded the limit of 150 requests within 10 seconds, and have been timed out for 60 seconds.", 60),
        ("The request timed out after 60 seconds", None),
    ],
)
def test_a_span_on_a_clock_is_a_wait_and_the_length_of_a_call_is_none(text, seconds):
    assert told(body=text) == seconds


def test_a_quota_of_the_current_month_is_spent_for_more_than_a_day():
    assert is_day_spent({}, "You've reached your read unit limit for the current month (1000000).", None, now=NOW)
