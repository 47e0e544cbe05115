"""What a server tells of waits, of kinds and of limits reaches the error or the reply, wherever it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.errors.families import QuotaExhausted, Throttled, Transient
from actors.limits.reported import ReportedLimit
from tests.actors.transports.http_upstream import a_call, answer, failure

pytestmark = pytest.mark.real_time


def of_google(delay: str, status: str = "RESOURCE_EXHAUSTED") -> dict[str, Any]:
    return {
        "error": {
            "code": 429,
            "status": status,
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}],
        }
    }


@pytest.mark.parametrize(
    ("reply", "family", "seconds"),
    [
        (answer(429, {"error": {"code": "rate_limit_exceeded"}}, Retry_After_Ms="850"), Throttled, 0.85),
        (answer(429, of_google("36s")), Throttled, 36.0),
        (answer(429, of_google("45.837906927s")), Throttled, 45.837906927),
        (answer(503, of_google("40s", "UNAVAILABLE")), Transient, 40.0),
        (answer(429, {"error": {"message": "Rate limit reached ... Please try again in 4.77s."}}), Throttled, 4.77),
        (answer(429, {"error": {"code": "429", "message": "Try again in 2 seconds."}}), Throttled, 2.0),
        (answer(429, b"Please retry after 45 seconds."), Throttled, 45.0),
        (answer(503, {"error": "Model x is currently loading", "estimated_time": 20.0}), Transient, 20.0),
        (answer(429, {}, Retry_After="1m30s"), Throttled, 90.0),
        (
            answer(429, {}, X_RateLimit_Remaining_Requests="0", X_RateLimit_Reset_Requests="6m0s"),
            Throttled,
            360.0,
        ),
        (answer(429, {}, X_RateLimit_Remaining_Requests_Day="0"), QuotaExhausted, None),
        (answer(400, {"message": "Slow down."}, X_Amzn_ErrorType="ThrottlingException:http://a/b"), Throttled, None),
        (answer(400, {"message": "Too much."}, X_Amzn_ErrorType="ServiceQuotaExceededException"), QuotaExhausted, None),
        # An error inside a success.
        (answer(200, of_google("36s")), Throttled, 36.0),
        (answer(200, {"error": {"code": 429, "message": "x"}}, Retry_After="7"), Throttled, 7.0),
    ],
    ids=lambda value: value[:60] if isinstance(value, bytes) else str(value),
)
async def test_a_wait_or_a_kind_is_heard_wherever_it_is_told(upstream, door, reply, family, seconds):
    upstream.script = [reply]
    error = await failure(door())
    assert (type(error), error.retry_after) == (family, seconds)


async def test_the_windows_of_limits_are_those_of_the_providers_documents(upstream, door):
    limits = {"X-RateLimit-Limit-Requests": "1000", "X-RateLimit-Limit-Tokens": "6000"}
    upstream.script = [answer(200, json.loads('{"output": 1}'), **limits)]
    transport = door(name="groq")
    reply = await transport.call(a_call())
    assert reply.limits == (
        ReportedLimit(limit=1000, window=86_400.0),
        ReportedLimit(dimension="tokens", limit=6000, window=60.0),
    )
