"""Errors of clients and SDKs, read as the answers they carry, and as evidence of whether the request was sent."""

from __future__ import annotations

import asyncio
import enum
import http
import http.client
import json
import socket
import sys
import urllib.error
from concurrent.futures import Future
from email.message import Message
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors.error_tree import text_of
from actors.errors.exceptions import classify
from actors.errors.families import (
    CallFailed,
    ConnectionFailed,
    OutcomeUnknown,
    Permanent,
    Throttled,
    Transient,
)
from actors.transports.function import FunctionTransport
from actors.transports.transport import ProviderCall

REFUSED = ConnectionRefusedError(111, "Connection refused")


def a_call() -> ProviderCall:
    return ProviderCall(service="s", input="x", request_id="r", idempotency_key="k", max_cost=1, timeout=5.0)


def error_of(module: str, name: str, *bases: type, text: str = "it failed", **fields: Any) -> Any:
    """Return an error of a class as a package has it, which need not be installed."""
    kind = type(name, bases or (Exception,), {"__module__": module})
    error = kind(*fields.pop("args", (text,)))
    vars(error).update(fields)
    return error


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def paid(error: BaseException, **declared: Any) -> CallFailed:
    return classify(error, provider="acme", paid=True, idempotent=False, **declared)


class GrpcStatus(enum.Enum):
    """As in grpc.StatusCode."""

    RESOURCE_EXHAUSTED = (8, "resource exhausted")
    UNAVAILABLE = (14, "unavailable")
    DEADLINE_EXCEEDED = (4, "deadline exceeded")


def of_grpc(status: GrpcStatus, details: str) -> Exception:
    return error_of("grpc._channel", "_InactiveRpcError", text=details, code=lambda: status, details=lambda: details)


def of_boto(code: str, status: int | None, **metadata: Any) -> Exception:
    told = {} if status is None else {"HTTPStatusCode": status}
    response = {"Error": {"Code": code, "Message": "it says so"}, "ResponseMetadata": told | metadata}
    return error_of("botocore.exceptions", "ClientError", text=f"An error occurred ({code})", response=response)


# The answer that an error carries.


@pytest.mark.parametrize(
    ("error", "family", "status"),
    [
        (error_of("google.genai.errors", "ClientError", code=429, text="429 RESOURCE_EXHAUSTED."), Throttled, 429),
        (error_of("google.api_core", "TooMany", code=http.HTTPStatus.TOO_MANY_REQUESTS), Throttled, 429),
        (error_of("sdk", "E", status_code="429"), Throttled, 429),
        (error_of("sdk", "E", status="429 Too Many Requests"), Throttled, 429),
        (error_of("sdk", "E", status="RESOURCE_EXHAUSTED"), Throttled, 429),
        (error_of("sdk", "E", http_status=400), Permanent, 400),
        (error_of("sdk", "E", code="rate_limit_exceeded"), Throttled, 429),
        (of_grpc(GrpcStatus.RESOURCE_EXHAUSTED, "quota"), Throttled, 429),
        (of_boto("ThrottlingException", 429), Throttled, 429),
        (of_boto("ThrottlingException", None), Throttled, 429),
        (of_boto("ValidationException", 400), Permanent, 400),
        (of_boto("ServiceUnavailableException", 503), Transient, 503),
        (error_of("sdk", "E", response=SimpleNamespace(status=429)), Throttled, 429),
        (ExceptionGroup("in a task group", [error_of("sdk", "E", status_code=429)]), Throttled, 429),
        (caused(RuntimeError("gave up"), error_of("sdk", "E", status_code=429)), Throttled, 429),
        (caused(RuntimeError("gave up"), ExceptionGroup("g", [error_of("sdk", "E", status=400)])), Permanent, 400),
        (caused(ValueError("no capacity"), Throttled("slow down", status=429)), Throttled, 429),
        (urllib.error.HTTPError("http://h/", 429, "Too Many Requests", Message(), None), Throttled, 429),
    ],
    ids=lambda value: text_of(value)[:40] if isinstance(value, Exception) else None,
)
def test_an_answer_is_found_wherever_an_error_keeps_its_status(error, family, status):
    failure = classify(error, provider="acme", paid=True, idempotent=False)
    assert (type(failure), failure.status, failure.charged) == (family, status, "no")


@pytest.mark.parametrize(
    ("body", "family"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, Transient),
        ({"type": "overloaded_error", "message": "Overloaded"}, Transient),
        ({"type": "rate_limit_error", "message": "slow down"}, Throttled),
    ],
)
def test_an_error_out_of_a_stream_that_began_well_is_read_from_its_body(body, family):
    error = error_of("anthropic", "APIStatusError", status_code=200, body=body)
    assert type(classify(error, provider="acme")) is family


@pytest.mark.parametrize("code", [7, 1300, 20_003, "1300", "ECONNREFUSED", True, -1, None, object()])
def test_a_code_that_is_no_status_is_not_taken_for_one(code):
    assert classify(error_of("sdk", "E", code=code), provider="acme").status is None


def a_response(status: int, **known: Any) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("POST", "https://api.openai.com/v1/x"), **known)


def test_headers_and_body_of_the_response_tell_the_wait_the_limits_and_the_meaning():
    headers = {
        "Retry-After": "7",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "7s",
    }
    spent = json.dumps({"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}})
    failure = paid(error_of("openai", "RateLimitError", response=a_response(429, headers=headers, text=spent)))
    assert (failure.kind, failure.retry_after) == ("QuotaExhausted", 7.0)
    assert [limit.remaining for limit in failure.limits] == [0]
    of_aws = of_boto("ThrottlingException", 429, HTTPHeaders={"retry-after": "3"})
    assert paid(of_aws).retry_after == 3.0
    assert paid(error_of("sdk", "E", status_code=429, retry_after=4)).retry_after == 4.0


def test_a_body_that_was_not_read_yet_is_not_read():
    class Unread:
        status_code = 429
        headers = httpx.Headers({"retry-after": "2"})

        @property
        def text(self) -> str:
            raise AssertionError("this would read from the connection")

        content = body = text

    failure = paid(error_of("sdk", "E", response=Unread()))
    assert (type(failure), failure.retry_after) == (Throttled, 2.0)


def test_a_timeout_of_a_client_is_a_timeout_whatever_status_it_carries():
    timeout = error_of("litellm.exceptions", "Timeout", status_code=408, text="Request timed out")
    assert type(paid(timeout)) is OutcomeUnknown
    assert type(paid(caused(timeout, httpx.ConnectTimeout("")))) is ConnectionFailed


def test_what_the_client_of_grpc_says_of_itself_is_not_taken_for_the_server():
    assert type(paid(of_grpc(GrpcStatus.UNAVAILABLE, "Socket closed"))) is OutcomeUnknown
    assert type(paid(of_grpc(GrpcStatus.UNAVAILABLE, "failed to connect to all addresses"))) is ConnectionFailed
    assert type(paid(of_grpc(GrpcStatus.DEADLINE_EXCEEDED, "Deadline Exceeded"))) is OutcomeUnknown
    too_large = "Received message larger than max (9000000 vs. 4194304)"
    assert type(paid(of_grpc(GrpcStatus.RESOURCE_EXHAUSTED, too_large))) is OutcomeUnknown


# Whether the request was sent.

NEVER_SENT = [
    REFUSED,
    socket.gaierror(socket.EAI_NONAME, "unknown name"),
    OSError(
        "Multiple exceptions: [Errno 111] Connect call failed ('::1', 9), [Errno 111] Connect call failed ('a', 9)"
    ),
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout(""),
    httpx.PoolTimeout(""),
    error_of("httpx2", "ConnectError", error_of("httpx2", "TransportError").__class__),
    error_of("httpcore", "ConnectTimeout"),
    error_of("aiohttp.client_exceptions", "ClientConnectorDNSError", type(error_of("aiohttp", "ClientConnectorError"))),
    error_of("aiohttp.client_exceptions", "ConnectionTimeoutError", TimeoutError),
    error_of("requests.exceptions", "ConnectTimeout", OSError),
    error_of("urllib3.exceptions", "NewConnectionError"),
    error_of("botocore.exceptions", "EndpointConnectionError"),
    error_of("botocore.exceptions", "ConnectTimeoutError"),
    urllib.error.URLError(REFUSED),
    error_of("requests.exceptions", "ConnectionError", OSError, args=(error_of("urllib3", "NewConnectionError"),)),
    error_of(
        "requests.exceptions",
        "ConnectionError",
        OSError,
        args=(
            error_of(
                "urllib3.exceptions",
                "MaxRetryError",
                reason=error_of("urllib3", "NameResolutionError", type(error_of("urllib3", "NewConnectionError"))),
            ),
        ),
    ),
    caused(error_of("an_sdk", "APIConnectionError", text="Connection error."), httpx.ConnectError("refused")),
    caused(error_of("an_sdk", "APITimeoutError", text="Request timed out."), httpx.ConnectTimeout("")),
    ExceptionGroup("tasks", [REFUSED]),
    ExceptionGroup("tasks", [REFUSED, httpx.ConnectTimeout("")]),
    caused(OSError("All connection attempts failed"), ExceptionGroup("addresses", [REFUSED, REFUSED])),
]
MAY_BE_SENT = [
    httpx.ReadTimeout(""),
    httpx.ReadError(""),
    httpx.WriteTimeout(""),
    httpx.RemoteProtocolError("Server disconnected"),
    error_of(
        "aiohttp.client_exceptions", "ServerDisconnectedError", type(error_of("aiohttp", "ClientConnectionError"))
    ),
    error_of("requests.exceptions", "ReadTimeout", type(error_of("requests", "Timeout"))),
    error_of("requests.exceptions", "ConnectionError", OSError, args=(error_of("urllib3", "ProtocolError"),)),
    error_of("botocore.exceptions", "ReadTimeoutError"),
    http.client.RemoteDisconnected("without response"),
    http.client.IncompleteRead(b""),
    urllib.error.URLError(TimeoutError("timed out")),
    urllib.error.URLError("no host given"),
    TimeoutError(),
    ConnectionResetError(),
    EOFError(),
    ExceptionGroup("tasks", [REFUSED, httpx.ReadTimeout("")]),
    ExceptionGroup("tasks", [REFUSED, RuntimeError("who knows")]),
    ExceptionGroup("tasks", [httpx.ReadTimeout(""), error_of("sdk", "E", status_code=429)]),
    caused(httpx.ConnectError("the second try"), httpx.ReadTimeout("the first")),
    caused(TimeoutError("gave up"), error_of("sdk", "E", status_code=429)),
    caused(error_of("an_sdk", "APIConnectionError"), httpx.ReadError("")),
    OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 9), [Errno 104] reset"),
]


def in_short(error: object) -> str:
    return text_of(error)[:60] if isinstance(error, BaseException) else "?"


async def failed_call(error: Exception, **declared: Any) -> CallFailed:
    async def fail(_call: ProviderCall) -> None:
        raise error

    with pytest.raises(CallFailed) as caught:
        await FunctionTransport(fail, paid=True, idempotent="no", **declared).call(a_call())
    return caught.value


@pytest.mark.parametrize("error", NEVER_SENT, ids=in_short)
async def test_an_error_that_means_that_no_byte_was_sent_holds_nothing(error):
    failure = await failed_call(error)
    assert (type(failure), failure.outcome, failure.charged) == (ConnectionFailed, "not_started", "no")


@pytest.mark.parametrize("error", MAY_BE_SENT, ids=in_short)
async def test_an_error_of_a_call_that_may_have_been_sent_keeps_its_money_held(error):
    failure = await failed_call(error)
    assert (failure.outcome, failure.charged) == ("unknown", "held")
    assert type(classify(error, provider="acme")) in {Transient, Throttled, Permanent, ConnectionFailed} or (
        isinstance(error, ExceptionGroup)
    )


# Whether the last error speaks for every try.


@pytest.mark.parametrize("error", NEVER_SENT, ids=in_short)
async def test_the_last_error_of_a_client_that_retries_proves_nothing(error):
    failure = await failed_call(error, client_retries=True)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    assert type(await failed_call(error, client_retries=False)) is ConnectionFailed


def from_package(name: str, error: Exception) -> Any:
    """Return a function that raises `error`, as one of an installed package of that name would."""
    scope: dict[str, Any] = {"__name__": name, "error": error}
    code = compile("def send():\n    raise error\n", f"/venv/site-packages/{name}.py", "exec")
    exec(code, scope)  # noqa: S102 - the package need not be installed.
    return scope["send"]


async def called(send: Any, **declared: Any) -> CallFailed:
    async def function(_call: ProviderCall) -> None:
        send()

    with pytest.raises(CallFailed) as caught:
        await FunctionTransport(function, paid=True, idempotent="no", **declared).call(a_call())
    return caught.value


async def test_a_package_of_which_nothing_is_known_may_have_tried_before():
    send = from_package("some_sdk", httpx.ConnectError("refused"))
    failure = await called(send)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    assert "client_retries=False" in str(failure)
    assert type(await called(send, client_retries=False)) is ConnectionFailed
    assert type(await called(from_package("httpcore.sync", httpx.ConnectError("refused")))) is ConnectionFailed


def counted(error: Any, retries: int | None) -> Any:
    headers = {} if retries is None else {"x-stainless-retry-count": str(retries)}
    error.request = httpx.Request("POST", "https://api.openai.com/", headers=headers)
    return error


@pytest.mark.parametrize(("retries", "family"), [(0, ConnectionFailed), (2, OutcomeUnknown), (None, OutcomeUnknown)])
async def test_an_sdk_that_counts_its_retries_in_the_request_is_believed(retries, family):
    error = counted(error_of("openai", "APIConnectionError"), retries)
    failure = await failed_call(caused(error, httpx.ConnectError("refused")))
    assert (type(failure), failure.wire_calls) == (family, (retries or 0) + 1)


class LastAttempt(Future[None]):
    """As tenacity keeps it."""

    def __init__(self, number: int, error: Exception) -> None:
        super().__init__()
        self.attempt_number = number
        self.set_exception(error)


@pytest.mark.parametrize(("number", "family"), [(1, ConnectionFailed), (3, OutcomeUnknown)])
async def test_a_wrapper_of_retries_tells_how_many_tries_came_before(number, family):
    error = error_of("tenacity", "RetryError", last_attempt=LastAttempt(number, httpx.ConnectError("refused")))
    failure = await failed_call(error)
    assert (type(failure), failure.wire_calls) == (family, number)


SEVERAL_TRIES = [
    counted(error_of("openai", "RateLimitError", status_code=429), 2),
    error_of("tenacity", "RetryError", last_attempt=LastAttempt(2, error_of("sdk", "E", status_code=429))),
    of_boto("ThrottlingException", 429, RetryAttempts=4),
    error_of("sdk", "E", response=SimpleNamespace(status_code=404, history=[object()])),
]


@pytest.mark.parametrize("error", SEVERAL_TRIES, ids=in_short)
async def test_a_refusal_of_the_last_try_says_nothing_of_those_before_it(error):
    failure = await failed_call(error)
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    assert failure.status in {404, 429}
    repeatable = classify(error, provider="acme", paid=True)
    assert (repeatable.outcome, repeatable.charged) == ("unknown", "held")
    assert classify(error, provider="acme").charged == "no"


async def test_a_try_that_was_made_while_an_earlier_one_was_handled_is_not_the_only_one():
    async def function(_call: ProviderCall) -> None:
        try:
            raise httpx.ReadTimeout("stalled")
        except httpx.ReadTimeout:
            raise httpx.ConnectError("refused")  # noqa: B904 - as clients do.

    transport = FunctionTransport(function, paid=True, idempotent="no")
    with pytest.raises(OutcomeUnknown):
        await transport.call(a_call())


async def test_what_was_being_handled_before_the_call_says_nothing_of_it():
    async def refused(_call: ProviderCall) -> None:
        raise httpx.ConnectError("refused")

    try:
        raise httpx.ReadTimeout("of another provider, which this call stands in for")
    except httpx.ReadTimeout:
        with pytest.raises(ConnectionFailed):
            await FunctionTransport(refused, paid=True, idempotent="no").call(a_call())


# Errors that misbehave.


class Evil(Exception):
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    __hash__ = None  # type: ignore[assignment]

    @property
    def response(self) -> object:
        raise asyncio.CancelledError

    @property
    def status(self) -> int:
        raise SystemExit

    @property
    def __cause__(self) -> None:
        raise RuntimeError("no cause")

    @property
    def __class__(self) -> type:
        raise RuntimeError("no class")

    def code(self) -> int:
        raise RuntimeError("no code")


def in_a_circle() -> Exception:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def deep() -> Exception:
    error = RuntimeError("the deepest")
    for number in range(5_000):
        error = caused(RuntimeError(str(number)), error)  # type: ignore[assignment]
    return error


async def a_coroutine() -> int:
    return 429


class Overflowing(Exception):
    def __str__(self) -> str:
        return "x" * 10_000_000


AWKWARD = [
    Evil("x"),
    ExceptionGroup("evil ones", [Evil("x"), Evil("y")]),
    caused(RuntimeError("from"), Evil("x")),
    in_a_circle(),
    deep(),
    Overflowing(),
    error_of("sdk", "E", code=a_coroutine),
    error_of("sdk", "E", text="\ud800 half a character"),
    error_of("sdk", "E", response=Evil("x"), headers=Evil("x"), body=Evil("x"), last_attempt=Evil("x")),
    error_of("sdk", "E", status_code=10**400),
    error_of("sdk", "E", args=(5,), kwargs=7, exceptions="abc", request=5),
]


@pytest.mark.parametrize("number", range(len(AWKWARD)))
async def test_whatever_an_error_does_the_outcome_is_typed_and_the_money_held(number):
    failure = await failed_call(AWKWARD[number])
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
    assert len(str(failure)) < 10_000


VALUES = (
    st.none()
    | st.integers()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from([429, 503, 400, "RESOURCE_EXHAUSTED", "evil", REFUSED, httpx.ReadTimeout("")])
    | st.dictionaries(st.sampled_from(["Error", "Code", "error", "ResponseMetadata", "HTTPStatusCode"]), st.integers())
)
FIELDS = ("status", "status_code", "code", "response", "body", "headers", "request", "reason", "last_attempt", "args")


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES), st.booleans(), st.booleans(), st.booleans())
def test_whatever_an_error_holds_the_outcome_is_some_family(fields, is_paid, idempotent, sent):
    error = error_of("sdk", "E")
    # Made here, since Hypothesis cannot show one.
    fields = {name: Evil("x") if value == "evil" else value for name, value in fields.items()}
    if "args" in fields:
        error.args = (fields["args"],)
    vars(error).update(fields)
    failure = classify(error, provider="acme", paid=is_paid, idempotent=idempotent, sent=sent)
    assert isinstance(failure, CallFailed)
    assert not (is_paid and not idempotent and failure.retryable and failure.outcome == "unknown" and sent)


def test_nothing_is_imported_to_recognise_a_client():
    before = set(sys.modules)
    paid(error_of("botocore.exceptions", "EndpointConnectionError"))
    assert set(sys.modules) == before


def of_httpx(status: int, **content: Any) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://api.example/")
    response = httpx.Response(status, request=request, **content)
    return httpx.HTTPStatusError(f"answered {status}", request=request, response=response)


FIRST_TRIES = [
    (of_httpx(500), True),
    (of_httpx(504), True),
    (of_httpx(503, text="upstream request timeout"), True),
    (error_of("aiohttp", "ContentTypeError", status=200), True),
    (of_httpx(429), False),
    (of_httpx(401), False),
    (of_httpx(503, json={"error": {"message": "overloaded"}}), False),
]


@pytest.mark.parametrize("last", [of_httpx(429), httpx.ConnectError("refused")], ids=in_short)
@pytest.mark.parametrize("is_cause", [False, True])
@pytest.mark.parametrize(("first", "may_be_paid"), FIRST_TRIES, ids=in_short)
async def test_an_answer_to_an_earlier_try_counts_as_well(first, may_be_paid, last, is_cause):
    async def function(_call: ProviderCall) -> None:
        try:
            raise first
        except Exception as error:  # noqa: BLE001 - whichever it is.
            last.__cause__ = error if is_cause else None
            raise last  # noqa: B904 - both ways.

    with pytest.raises(CallFailed) as caught:
        await FunctionTransport(function, paid=True, idempotent="no").call(a_call())
    assert caught.value.charged == ("held" if may_be_paid else "no")


async def test_an_error_of_an_sdk_and_the_answer_that_it_stands_for_are_one_try():
    error = caused(error_of("sdk", "RateLimitError", status_code=429), of_httpx(429))
    assert type(await failed_call(error)) is Throttled


LOCAL_REFUSALS = [
    (error_of("botocore.exceptions", "NoCredentialsError"), "provider", "key"),
    (error_of("botocore.exceptions", "ParamValidationError"), "request", None),
    (error_of("botocore.exceptions", "NoRegionError"), "here", None),
    (error_of("google.auth.exceptions", "DefaultCredentialsError"), "provider", "key"),
    (httpx.InvalidURL("no host"), "here", None),
    (error_of("requests.exceptions", "MissingSchema", ValueError), "here", None),
    (error_of("aiohttp.client_exceptions", "InvalidUrlClientError"), "here", None),
    (error_of("openai", "OpenAIError", text="The api_key client option must be set"), "provider", "key"),
    (TypeError('"Could not resolve authentication method. Expected either api_key or auth_token"'), "provider", "key"),
]


@pytest.mark.parametrize(("error", "scope", "concerns"), LOCAL_REFUSALS, ids=in_short)
async def test_what_a_client_refuses_before_it_sends_holds_nothing(error, scope, concerns):
    failure = await failed_call(error)
    assert isinstance(failure, Permanent)
    assert (failure.scope, failure.concerns) == (scope, concerns)
    assert (failure.outcome, failure.charged) == ("not_started", "no")
    assert (await failed_call(error, client_retries=True)).charged == "held"


REDIRECTED = error_of("aiohttp", "InvalidUrlRedirectClientError", type(LOCAL_REFUSALS[6][0]))


@pytest.mark.parametrize(
    "error", [REDIRECTED, TypeError("unexpected"), error_of("openai", "OpenAIError")], ids=in_short
)
async def test_what_a_client_refuses_later_keeps_its_money_held(error):
    assert (await failed_call(error)).charged == "held"


@pytest.mark.parametrize(
    ("details", "family"),
    [
        ("CLIENT: Sent message larger than max (5 vs. 4)", Permanent),
        ("SERVER: Received message larger than max (5 vs. 4)", Permanent),
        ("SERVER: Sent message larger than max (5 vs. 4)", OutcomeUnknown),
        ("CLIENT: Received message larger than max (5 vs. 4)", OutcomeUnknown),
        ("Received message larger than max (5 vs. 4)", OutcomeUnknown),
        ("Decompressed message larger than max", OutcomeUnknown),
    ],
)
async def test_a_message_too_large_for_grpc_is_the_request_only_if_it_says_so(details, family):
    failure = await failed_call(of_grpc(GrpcStatus.RESOURCE_EXHAUSTED, details))
    assert isinstance(failure, family)


@pytest.mark.parametrize("name", ["APITimeoutError", "APIConnectionError"])
@pytest.mark.parametrize("status", [400, 408, 429, 500, 503])
async def test_a_status_that_a_client_puts_on_its_own_error_is_no_answer(name, status):
    failure = await failed_call(error_of("sdk", name, status_code=status))
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")
