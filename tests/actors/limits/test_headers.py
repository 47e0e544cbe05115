"""Limits are read for what their names say: what they count, in which window, and which of several is the tightest."""

from datetime import UTC, datetime
from fnmatch import fnmatchcase

import pytest

from actors.limits.header_names import header_name, header_words, usual_window
from actors.limits.headers import parse_limits, parse_reset
from actors.limits.reported import ReportedLimit

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = 86_400.0


def reported(headers, **known):
    return {limit.dimension: limit for limit in parse_limits(headers, now=NOW, **known)}


@pytest.mark.parametrize(
    "name",
    [
        "x-ratelimit-remaining-images",
        "x-ratelimit-remaining-images-minute",
        "x-ratelimit-remaining-input-characters",
        "anthropic-ratelimit-web-searches-remaining",
        "x-ratelimit-remaining-concurrent-requests",
        "x-ratelimit-tokens-query-cost",
        "anthropic-priority-input-tokens-remaining",
        "x-ratelimit-over-limit",
        "x-usage-limit",
    ],
)
def test_a_limit_of_something_else_is_never_one_of_requests(name):
    assert reported({name: "0", "x-ratelimit-remaining-requests": "9"}) == {"requests": ReportedLimit(remaining=9)}


def test_an_ietf_policy_in_another_unit_is_none_of_requests():
    headers = {"ratelimit-policy": '"a";q=1000;w=60;qu="content-bytes", "b";q=5;w=1', "ratelimit": '"a";r=0;t=9'}
    assert reported(headers) == {"requests": ReportedLimit(limit=5, window=1.0)}


def test_what_is_left_is_joined_to_the_policy_it_names():
    headers = {"RateLimit": '"day";r=3;t=70', "RateLimit-Policy": '"minute";q=100;w=60, "day";q=1000;w=86400'}
    assert reported(headers) == {"requests": ReportedLimit(limit=1000, remaining=3, reset=70.0, window=DAY)}


@pytest.mark.parametrize(
    ("headers", "host", "limits"),
    [
        (  # Mistral
            {
                "x-ratelimit-limit-req-minute": "720",
                "x-ratelimit-remaining-req-minute": "717",
                "x-ratelimit-limit-tokens-minute": "5000000",
                "x-ratelimit-remaining-tokens-minute": "4999911",
                "x-ratelimit-limit-tokens-month": "10000000000",
                "x-ratelimit-remaining-tokens-month": "9999999000",
                "x-ratelimit-tokens-query-cost": "52",
            },
            "api.mistral.ai",
            [
                ReportedLimit(limit=720, remaining=717, window=60.0),
                ReportedLimit(dimension="tokens", limit=5_000_000, remaining=4_999_911, window=60.0),
            ],
        ),
        (  # Mistral, at the end of a month
            {
                "x-ratelimit-limit-tokens-minute": "500000",
                "x-ratelimit-remaining-tokens-minute": "499911",
                "x-ratelimit-limit-tokens-month": "4000000",
                "x-ratelimit-remaining-tokens-month": "17",
            },
            "api.mistral.ai",
            [ReportedLimit(dimension="tokens", limit=4_000_000, remaining=17, window=28 * DAY)],
        ),
        (  # Cerebras
            {
                "x-ratelimit-limit-requests-day": "1000",
                "x-ratelimit-remaining-requests-day": "3",
                "x-ratelimit-reset-requests-day": "33011.3",
                "x-ratelimit-limit-tokens-minute": "1000000",
                "x-ratelimit-remaining-tokens-minute": "999000",
                "x-ratelimit-reset-tokens-minute": "11.4",
            },
            "api.cerebras.ai",
            [
                ReportedLimit(limit=1000, remaining=3, reset=33_011.3, window=DAY),
                ReportedLimit(dimension="tokens", limit=1_000_000, remaining=999_000, reset=11.4, window=60.0),
            ],
        ),
        (  # SambaNova: a limit of a minute without a suffix beside one of a day
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "42",
                "x-ratelimit-limit-requests-day": "1000",
                "x-ratelimit-remaining-requests-day": "900",
            },
            "api.sambanova.ai",
            [ReportedLimit(limit=60, remaining=42)],
        ),
        (  # OpenAI, with the limit of a project
            {
                "x-ratelimit-limit-requests": "5000",
                "x-ratelimit-remaining-requests": "4999",
                "x-ratelimit-reset-requests": "12ms",
                "x-ratelimit-limit-tokens": "2000000",
                "x-ratelimit-remaining-tokens": "1999990",
                "x-ratelimit-reset-tokens": "0s",
                "x-ratelimit-limit-project-tokens": "160000",
                "x-ratelimit-remaining-project-tokens": "3",
                "x-ratelimit-reset-project-tokens": "40s",
            },
            "api.openai.com",
            [
                ReportedLimit(limit=5000, remaining=4999, reset=0.012),
                ReportedLimit(dimension="tokens", limit=160_000, remaining=3, reset=40.0),
            ],
        ),
        (  # OpenAI: the limit of the organization is the tighter one
            {
                "x-ratelimit-remaining-tokens": "5",
                "x-ratelimit-remaining-project-tokens": "3000",
                "x-ratelimit-remaining-tokens_usage_based": "4000",
            },
            "api.openai.com",
            [ReportedLimit(dimension="tokens", remaining=5)],
        ),
        (  # Anthropic's four
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2030-01-01T12:00:01Z",
                "anthropic-ratelimit-tokens-limit": "88000",
                "anthropic-ratelimit-tokens-remaining": "80000",
                "anthropic-ratelimit-input-tokens-limit": "80000",
                "anthropic-ratelimit-input-tokens-remaining": "72000",
                "anthropic-ratelimit-output-tokens-limit": "8000",
                "anthropic-ratelimit-output-tokens-remaining": "8000",
            },
            "api.anthropic.com",
            [
                ReportedLimit(limit=50, remaining=49, reset=1.0, window=60.0),
                ReportedLimit(dimension="tokens", limit=88_000, remaining=80_000, window=60.0),
                ReportedLimit(dimension="input_tokens", limit=80_000, remaining=72_000, window=60.0),
                ReportedLimit(dimension="output_tokens", limit=8_000, remaining=8_000, window=60.0),
            ],
        ),
        (  # Groq: requests of a day, tokens of a minute
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
                "x-ratelimit-limit-tokens": "18000",
                "x-ratelimit-remaining-tokens": "17997",
                "x-ratelimit-reset-tokens": "7.66s",
            },
            "api.groq.com",
            [
                ReportedLimit(limit=14_400, remaining=14_370, reset=120 + 59.56, window=DAY),
                ReportedLimit(dimension="tokens", limit=18_000, remaining=17_997, reset=7.66, window=60.0),
            ],
        ),
        (  # Fireworks
            {
                "x-ratelimit-limit-tokens-prompt": "3600000",
                "x-ratelimit-remaining-tokens-prompt": "3599000",
                "x-ratelimit-limit-tokens-cache-adjusted-prompt": "900000",
                "x-ratelimit-remaining-tokens-cache-adjusted-prompt": "899000",
                "x-ratelimit-limit-tokens-generated": "36000",
                "x-ratelimit-remaining-tokens-generated": "35000",
                "x-ratelimit-over-limit": "no",
            },
            "api.fireworks.ai",
            [
                ReportedLimit(dimension="input_tokens", limit=900_000, remaining=899_000, window=60.0),
                ReportedLimit(dimension="output_tokens", limit=36_000, remaining=35_000, window=60.0),
            ],
        ),
        (  # Together
            {
                "x-ratelimit-limit": "600",
                "x-ratelimit-remaining": "599",
                "x-ratelimit-reset": "1",
                "x-tokenlimit-limit": "180000",
                "x-tokenlimit-remaining": "170000",
                "x-tokenlimit-remaining-dynamic": "90000",
            },
            "api.together.xyz",
            [
                ReportedLimit(limit=600, remaining=599, reset=1.0),
                ReportedLimit(dimension="tokens", remaining=90_000),
            ],
        ),
        (  # Azure OpenAI: -1 is no limit, and a further hyphen is one and the same
            {
                "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-remaining-requests": "-1",
                "x-ratelimit-reset-requests": "0",
                "x-rate-limit-reset-tokens": "17",
                "x-ratelimit-remaining-tokens": "5",
            },
            "my-res.openai.azure.com",
            [ReportedLimit(dimension="tokens", remaining=5, reset=17.0)],
        ),
        (  # OpenRouter: milliseconds since 1970
            {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1893499230000"},
            "openrouter.ai",
            [ReportedLimit(limit=50, remaining=0, reset=30.0)],
        ),
        (  # Kong
            {"X-RateLimit-Limit-Minute": "10", "X-RateLimit-Remaining-Minute": "4"},
            None,
            [ReportedLimit(limit=10, remaining=4, window=60.0)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limits_are_what_each_provider_means_by_them(headers, host, limits):
    assert reported(headers, host=host) == {limit.dimension: limit for limit in limits}


def test_a_window_that_is_not_told_is_known_by_the_name_of_the_provider_too():
    assert reported({"x-ratelimit-limit-requests": "9"}, provider="Groq-EU")["requests"].window == DAY
    assert reported({"x-ratelimit-limit-requests": "9"}, provider="alder")["requests"].window is None
    assert reported({"x-ratelimit-limit-requests": "9, 9;w=1"}, provider="groq")["requests"].window == 1.0


def test_a_limit_that_tells_a_window_alone_is_none():
    assert parse_limits({"x-ratelimit-limit-requests-day": "none"}, now=NOW) == ()


@pytest.mark.parametrize("row", header_words().window, ids=lambda row: f"{row.only[0]} {row.dimension}")
def test_every_window_of_the_table_is_used(row):
    host = row.only[0].replace("*", "x")
    assert fnmatchcase(host, row.only[0])
    assert usual_window(row.dimension, host=host) == row.window
    assert usual_window("images", host=host) is None


@pytest.mark.parametrize(("words", "dimension"), header_words().dimensions.items())
def test_every_dimension_of_the_table_is_read(words, dimension):
    assert header_name(f"x-ratelimit-remaining-{words}").dimension == dimension
    assert header_name(f"acme-ratelimit-{words}-remaining").dimension == dimension


@pytest.mark.parametrize(("word", "window"), header_words().windows.items())
def test_every_window_in_a_name_is_read(word, window):
    assert header_name(f"x-ratelimit-limit-requests-{word}").window == window
    assert header_name(f"x-ratelimit-limit-requests-per-{word}").dimension == "requests"


@pytest.mark.parametrize("word", header_words().qualifiers)
def test_every_qualifier_tells_limits_of_one_dimension_apart(word):
    name = header_name(f"x-ratelimit-limit-{word}-tokens")
    assert (name.dimension, name.limit) == ("tokens", f"{word}-tokens")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500µs", 0.0005),
        ("500us", 0.0005),
        ("1m0.5s", 60.5),
        ("Tue, 01 Jan 2030 12:00:30 GMT", 30.0),
        ("2030-01-01T12:00:30.123456789Z", pytest.approx(30.123456)),
        ("2030-01-01T13:00:30+01:00", 30.0),
    ],
)
def test_a_reset_may_be_a_fine_duration_or_any_kind_of_date(text, seconds):
    assert parse_reset(text, now=NOW) == seconds
