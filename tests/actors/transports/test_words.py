"""What a provider says is in the errors of its transport, and what is secret of ours is not."""

from __future__ import annotations

import base64
import functools
import json

import pytest

from actors.errors.families import CallFailed, ConnectionFailed, OutcomeUnknown, Permanent, Throttled
from actors.transports.function import FunctionTransport
from actors.transports.http import HttpTransport
from tests.actors.transports.http_upstream import a_call, answer, failure

KEY = "sk-planted-0123456789"
HEADERS = {"Authorization": f"Bearer {KEY}", "X-Team": "team-of-ours", "Accept": "json"}
TOO_LONG = "maximum context length is 100 tokens"

http = pytest.mark.real_time


@http
async def test_the_words_of_a_refusal_are_in_its_error(upstream, door):
    upstream.script = [answer(400, {"error": {"message": TOO_LONG, "type": "invalid_request_error"}})]
    error = await failure(door())
    assert (type(error), error.said) == (Permanent, TOO_LONG)
    assert str(error) == f"'alder' answered 400 Bad Request: too long for the window of its model: {TOO_LONG}"


@http
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"Incorrect API key provided: {KEY}; accept json, team team-of-ours"}},
        f"Authorization: Bearer {KEY}\r\nX-Team: team-of-ours".encode(),
        {"request": {"headers": HEADERS}},
        {"error": {"message": base64.b64encode(KEY.encode()).decode()}},
        {"error": {"message": "x" * 490 + KEY}},
        b"x" * 490 + KEY.encode(),
    ],
)
@pytest.mark.parametrize("status", [200, 401, 429, 500])
async def test_a_header_that_is_echoed_is_masked(upstream, door, body, status):
    upstream.script = [answer(status, body)]
    error = await failure(door(headers=HEADERS, paid=True, idempotent="no"))
    for text in (str(error), repr(error), error.said):
        assert "sk-pl" not in text
        assert "team-of-ours" not in text
        assert len(text) < 700


@http
async def test_a_malformed_answer_is_quoted_without_secrets(upstream, door):
    upstream.script = [answer(200, f'{{"output": 1, "cost": "{KEY}"'.encode()), answer(200, {"cost": KEY, "output": 1})]
    transport = door(headers=HEADERS)
    assert KEY[:8] not in str(await failure(transport))
    reply = await transport.call(a_call())
    assert (reply.output, reply.unread_cost) == (1, "***")


@http
async def test_the_password_and_the_query_of_the_url_are_masked(upstream, door):
    url = f"http://me:pass-of-ours@127.0.0.1:{upstream.port}/v1/path-of-ours?key=q7&deployment=gpt-of-ours"
    upstream.script = [answer(403, {"message": "me pass-of-ours q7 gpt-of-ours path-of-ours bWU6cGFzcy1vZi1vdXJz"})]
    transport = door(url, secrets=["path-of-ours"])
    assert (await failure(transport)).said == "me *** *** *** *** ***"
    assert repr(transport) == (
        f"HttpTransport(alder at http://127.0.0.1:{upstream.port}/v1/***?key=...&deployment=..., open, "
        "idempotent='key')"
    )


@http
async def test_words_do_not_change_the_meaning_of_an_answer(upstream, door):
    upstream.script = [answer(429, {"error": {"code": "insufficient_quota", "message": "insufficient_quota " + KEY}})]
    error = await failure(door(headers={"X-Api-Key": "insufficient_quota", "X-Key": KEY}))
    assert error.kind == "QuotaExhausted"
    assert error.said == "*** ***"


@http
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":' * 400_000,
        b'{"error": {"message": "' + b"\\u202e" * 600_000 + b'"}}',
        b'{"error": "' + b"\xff" * 3_000_000 + b'"}',
        rb'{"error": {"message": "\ud800 [red]{0}{message}\u001b[31m"}}',
    ],
    ids=["deep", "long", "not UTF-8", "surrogate"],
)
async def test_a_hostile_body_is_shown_short_and_printable(upstream, door, status, body):
    upstream.script = [answer(status, body)]
    error = await failure(door(headers=HEADERS))
    assert str(error).isprintable()
    assert len(error.said) <= 500


class SdkError(Exception):
    """What an SDK raises for an answer with a status."""

    def __init__(self, text: str, status_code: int | None = None) -> None:
        super().__init__(text)
        self.status_code = status_code


async def raised_as(error: Exception, **options: object) -> CallFailed:
    async def fail(_call: object) -> None:
        raise error

    transport = FunctionTransport(fail, paid=True, idempotent="no", provider="acme", **options)  # type: ignore[arg-type]
    with pytest.raises(CallFailed) as caught:
        await transport.call(a_call())
    return caught.value


@pytest.mark.parametrize(
    ("error", "family", "text"),
    [
        (
            SdkError(TOO_LONG, 400),
            Permanent,
            f"'acme' answered 400 Bad Request: too long for the window of its model: {TOO_LONG}",
        ),
        (
            SdkError(f"wait, {KEY}\n\x1b[31m", 429),
            Throttled,
            r"'acme' answered 429 Too Many Requests: wait, ***\n\x1b[31m",
        ),
        (SdkError(f"too bad, {KEY}"), OutcomeUnknown, "'acme': SdkError: too bad, ***"),
        (
            ConnectionRefusedError(f"no {KEY}"),
            ConnectionFailed,
            "no connection to 'acme': ConnectionRefusedError: no ***",
        ),
        (TimeoutError(), OutcomeUnknown, "'acme': TimeoutError"),
    ],
)
async def test_the_words_of_an_sdk_are_in_the_error(error, family, text):
    failed = await raised_as(error, secrets=[KEY])
    assert type(failed) is family
    assert str(failed) == text
    told = text.replace("too long for the window of its model: ", "")
    said = "" if isinstance(error, OSError) else told.partition("SdkError: ")[2] or told.partition(": ")[2]
    assert failed.said == said


async def test_a_cause_is_named_unless_it_says_a_secret():
    for error, secrets, is_named in (
        (SdkError("no"), [KEY], True),
        (SdkError(f"no {KEY}"), [], True),
        (SdkError(f"no {KEY}"), [KEY], False),
    ):
        failed = await raised_as(error, secrets=secrets)
        assert (failed.__cause__ is error) is is_named
        assert failed.__suppress_context__
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = SdkError(f"no {KEY}")
    assert (await raised_as(wrapped, secrets=[KEY])).__cause__ is None
    wrapped.__cause__.__cause__ = wrapped  # A circle.
    assert (await raised_as(wrapped, secrets=["another-one"])).__cause__ is wrapped
    assert (await raised_as(ExceptionGroup("two", [SdkError(KEY), SdkError("no")]), secrets=[KEY])).__cause__ is None


async def test_an_endless_text_of_an_sdk_is_cut():
    failed = await raised_as(SdkError("y" * 4_000_000))
    assert len(str(failed)) < 1_600


async def test_no_arguments_of_a_function_are_shown_as_its_name():
    async def ask(_key: str, _call: object) -> None: ...

    transport = FunctionTransport(functools.partial(ask, KEY), paid=False, idempotent="no")
    assert KEY not in repr(transport)
    with pytest.raises(TypeError) as caught:
        FunctionTransport(functools.partial(ask, KEY, None), paid=False, idempotent="no")
    assert KEY not in str(caught.value)


def test_a_url_that_cannot_be_called_is_refused_without_its_password():
    for url in (
        "http://me:pass-of-ours@host:99999/",
        "http://me:pass-of-ours@[::1/",
        "ftp://me:pass-of-ours@host/",
        "me:pass-of-ours@host/",
        "http://me:pass-of-ours@/",
        "http://me:pass-of-ours@ho st/",
        "http://me:pass-of-ours@host/\n",
        "//me:pass-of-ours@host/?key=pass-of-ours",
        f"http://me:pass-of-ours@{'x' * 300}/",
    ):
        with pytest.raises(ValueError, match="url") as caught:
            HttpTransport("alder", url, paid=False, idempotent="no")
        assert "pass-of-ours" not in str(caught.value)
    with pytest.raises(ValueError, match="health_path") as caught:
        HttpTransport(
            "alder", "http://me:pass-of-ours@host/", paid=False, idempotent="no", health_path="ftp://me:pass-of-ours@x/"
        )
    assert "pass-of-ours" not in str(caught.value)
    assert json.dumps(str(caught.value))
