"""The HTTP transport against a real server on loopback that follows a script."""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from actors.errors.families import (
    BulkheadFull,
    ConnectionFailed,
    OutcomeUnknown,
    Permanent,
    QuotaExhausted,
    Throttled,
    Transient,
)
from actors.money import Micros
from actors.transports.aiohttp_wire import AiohttpWire
from actors.transports.http import HttpTransport
from actors.transports.transport import ProviderReply
from tests.actors.transports.http_upstream import Upstream, a_call, answer, failure
from tests.real_time import FAR, skip

if TYPE_CHECKING:
    from actors.transports.wire import WireProgress, WireRequest, WireResponse

pytestmark = pytest.mark.real_time


async def test_a_call_is_posted_with_its_names_and_its_answer_comes_back_typed(upstream, door):
    upstream.script = [answer(body={"output": "HELLO", "cost": "0.0015", "model": "x"})]
    transport = door(headers={"Authorization": "Bearer t"})
    assert await transport.call(a_call()) == ProviderReply(output="HELLO", cost=Micros(1_500))
    first, headers, body = upstream.requests[0]
    assert first == "POST /v1/work HTTP/1.1"
    assert body == {"service": "uppercase", "input": {"text": "hello"}}
    assert headers["idempotency-key"] == "key-1"
    assert headers["x-request-id"] == "request-1"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer t"
    assert headers["accept-encoding"] == "identity"


async def test_no_header_given_for_all_requests_takes_the_place_of_a_calls_own(upstream, door):
    upstream.script = [answer(200, {"output": "done"})]
    own = {"X-REQUEST-ID": "fixed", "idempotency-key": "fixed", "content-type": "text/plain"}
    await door(headers=own).call(a_call())
    _, headers, _ = upstream.requests[0]
    assert headers["idempotency-key"] == "key-1"
    assert headers["x-request-id"] == "request-1"
    assert headers["content-type"] == "application/json"


async def test_calls_share_pooled_connections(upstream, door):
    upstream.script = [answer(body={"output": None})] * 3
    transport = door()
    for _ in range(3):
        assert await transport.call(a_call()) == ProviderReply(output=None, cost=None)
    assert upstream.connections == 1


async def test_a_key_that_no_header_can_carry_is_escaped(upstream, door):
    upstream.script = [answer(body={"output": 1})]
    await door().call(a_call(idempotency_key="Bäcker\r\nX: 1", request_id="a b%"))
    _, headers, _ = upstream.requests[0]
    assert headers["idempotency-key"] == "B%C3%A4cker%0D%0AX:%201"
    assert headers["x-request-id"] == "a%20b%25"


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (301, Permanent),
        (400, Permanent),
        (401, Permanent),
        (402, QuotaExhausted),
        (404, Permanent),
        (429, Throttled),
        (500, Transient),
        (503, Transient),
    ],
)
async def test_a_status_decides_the_family(upstream, door, status, family):
    upstream.script = [answer(status, {"error": "no"}, Location="/elsewhere")]
    error = await failure(door())
    assert type(error) is family
    assert error.status == status
    assert len(upstream.requests) == 1


async def test_a_dialect_in_the_body_is_heard(upstream, door):
    upstream.script = [answer(429, {"error": {"code": "insufficient_quota"}})]
    assert type(await failure(door())) is QuotaExhausted


async def test_500_to_a_paid_call_that_must_not_be_repeated_is_an_unknown_outcome(upstream, door):
    upstream.script = [answer(500), answer(503)]
    transport = door(idempotent="no")
    assert type(await failure(transport)) is OutcomeUnknown
    assert type(await failure(transport)) is Transient


async def test_retry_after_is_read_as_seconds_and_as_a_date(upstream, door):
    date = email.utils.formatdate(time.time() + 3000, usegmt=True)
    upstream.script = [answer(429, Retry_After="7"), answer(503, Retry_After=date), answer(429)]
    transport = door()
    assert (await failure(transport)).retry_after == 7.0
    assert 2000 < (await failure(transport)).retry_after <= 3000
    assert (await failure(transport)).retry_after is None


async def test_a_refused_connection_never_ran(door):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    error = await failure(door(f"http://127.0.0.1:{port}/", idempotent="no"))
    assert type(error) is ConnectionFailed
    assert error.outcome == "not_started"


async def test_a_timeout_before_the_request_left_never_ran(upstream, door):
    # This server waits for an HTTP head; the client waits for a TLS handshake that never comes.
    error = await failure(door(upstream.url.replace("http:", "https:"), idempotent="no"), timeout=0.05)
    assert type(error) is ConnectionFailed
    assert "no connection within 0.05 s" in str(error)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"paid": True, "idempotent": "no"}, (OutcomeUnknown, "held")),
        ({"paid": True, "idempotent": "key"}, (Transient, "held")),
        ({"paid": True, "idempotent": "repeatable"}, (Transient, "held")),
        ({"paid": False, "idempotent": "no"}, (Transient, "no")),
    ],
)
@pytest.mark.parametrize(
    "step",
    [
        Upstream.HANG,
        Upstream.CLOSE,
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{" + Upstream.HANG,
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        answer(200, b"{oops"),
        answer(200, {"cost": "1"}),
        answer(200, {"error": {}}),
        answer(200, b"[" * 100_000),
        answer(200, b"", Content_Encoding="gzip"),
        answer(204, b""),
    ],
)
async def test_a_call_that_was_sent_and_got_no_usable_answer_may_have_been_charged(
    upstream, door, step, declared, expected
):
    upstream.script = [step]
    failing = asyncio.create_task(failure(door(**declared)))
    if step.endswith(Upstream.HANG):
        await upstream.has_had(1)
        await skip(FAR)
    error = await failing
    assert (type(error), error.charged) == expected
    assert len(upstream.requests) == 1


async def test_a_malformed_answer_is_quoted(upstream, door):
    upstream.script = [answer(200, {"outputs": "overloaded"})]
    transport = door()
    assert "neither output nor error" in str(error := await failure(transport))
    assert "overloaded" in str(error)


@pytest.mark.parametrize(
    ("cost", "micros", "unread"),
    [
        ("0.002", 2_000, None),
        ("0.0000001", 1, None),
        (0.002, 2_000, None),
        (1, 1_000_000, None),
        (None, None, None),
        ("-1", None, "-1"),
        (-0.5, None, "-0.5"),
        ("free", None, "free"),
        ("1e40", None, "1e40"),
        (5_000, None, "5000"),
        (True, None, "True"),
        ({"usd": "0.1"}, None, "a value of type dict"),
        ("9" * 5_000, None, "9" * 97 + "..."),
    ],
)
async def test_an_answer_is_used_whatever_stands_for_its_cost(upstream, door, cost, micros, unread):
    upstream.script = [answer(200, {"output": "done", "cost": cost})]
    reply = await door().call(a_call())
    assert (reply.output, reply.cost, reply.unread_cost) == ("done", micros, unread)


@pytest.mark.parametrize(
    ("error", "family", "charged"),
    [
        ({"code": 429, "message": "slow down"}, Throttled, "no"),
        ({"code": 400, "message": "Your credit balance is too low"}, QuotaExhausted, "no"),
        ({"type": "overloaded_error"}, Transient, "no"),
        ({"code": "invalid_api_key"}, Permanent, "no"),
        ({"code": 502, "message": "upstream"}, OutcomeUnknown, "held"),
        ("something odd", OutcomeUnknown, "held"),
    ],
    ids=str,
)
async def test_an_error_inside_a_success_is_that_error(upstream, door, error, family, charged):
    upstream.script = [answer(200, {"output": None, "error": error}, Retry_After="3"), answer(200, {"error": error})]
    transport = door(idempotent="no")
    for _ in range(2):
        found = await failure(transport)
        assert (type(found), found.charged, found.wire_calls) == (family, charged, 1)
        assert found.retry_after in {3.0, None}
    assert len(upstream.requests) == 2


async def test_an_output_is_used_even_if_an_error_stands_beside_it(upstream, door):
    upstream.script = [answer(200, {"output": "paid", "error": "a warning"}), answer(200, {"output": None})]
    transport = door()
    assert (await transport.call(a_call())).output == "paid"
    assert (await transport.call(a_call())).output is None


class InsistingWire:
    """A wire that sends each request again after a 503, `retries` times, and follows no rule of ours."""

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self.inner = AiohttpWire()

    async def send(self, request: WireRequest, progress: WireProgress) -> WireResponse:
        for _ in range(self.retries):
            response = await self.inner.send(request, progress)
            if response.status != 503:
                return response
            response.close()
        return await self.inner.send(request, progress)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_what_a_wire_retries_on_its_own_is_counted_in_the_reply_and_in_the_error(upstream, door):
    upstream.script = [answer(503), answer(503), answer(body={"output": 1}), *[answer(503)] * 3, answer(200, b"{oops")]
    transport = door(wire=InsistingWire(2))
    assert not transport.ends_when_cancelled
    assert (await transport.call(a_call())).wire_calls == 3
    assert [(error := await failure(transport)).wire_calls, error.status] == [3, 503]
    assert (await failure(transport)).wire_calls == 1
    upstream.script = [answer(503), Upstream.CLOSE]
    lost = await failure(transport)
    assert (type(lost), lost.wire_calls) == (Transient, 2)


class FailingWire:
    """A wire that reports `stages` and then fails."""

    def __init__(self, error: Exception, *stages: str) -> None:
        self.error = error
        self.stages = stages

    async def send(self, request: WireRequest, progress: WireProgress) -> WireResponse:
        for stage in self.stages:
            if stage == "waiting":
                progress.waiting(7)
            else:
                getattr(progress, stage)()
        raise self.error

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("stages", "error", "family", "wire_calls"),
    [
        ((), TimeoutError("none"), OutcomeUnknown, 1),
        ((), ConnectionError("broke"), OutcomeUnknown, 1),
        (("waiting",), TimeoutError("none"), BulkheadFull, 0),
        (("waiting",), ConnectionError("closed"), ConnectionFailed, 1),
        (("waiting", "connecting"), TimeoutError("none"), ConnectionFailed, 1),
        (("connecting", "connecting"), ConnectionError("refused"), ConnectionFailed, 2),
        (("connecting", "sending"), ConnectionError("broke"), OutcomeUnknown, 1),
        (("connecting", "sending", "connecting"), ConnectionError("refused"), OutcomeUnknown, 1),
        (("connecting", "sending", "waiting", "connecting", "sending"), TimeoutError("none"), OutcomeUnknown, 2),
    ],
    ids=repr,
)
async def test_the_error_of_a_wire_counts_by_what_it_reported(door, stages, error, family, wire_calls):
    failed = await failure(door(wire=FailingWire(error, *stages), idempotent="no"))
    assert (type(failed), failed.wire_calls) == (family, wire_calls)


async def test_a_call_that_found_no_place_went_out_never(upstream, door):
    upstream.script = [Upstream.HANG, Upstream.HANG]
    transport = door(max_connections=1)
    busy = [asyncio.create_task(transport.call(a_call())) for _ in range(2)]
    await upstream.has_had(2)
    assert (await failure(transport, timeout=0.05)).wire_calls == 0
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


async def test_a_refusal_whose_explanation_breaks_off_is_still_that_refusal(upstream, door):
    head = b"HTTP/1.1 429 X\r\nRetry-After: 3\r\nContent-Length: 50\r\n\r\n{"
    upstream.script = [head + Upstream.CLOSE, head + Upstream.HANG]
    transport = door(idempotent="no")
    for timeout in (5.0, 0.2):
        error = await failure(transport, timeout=timeout)
        assert type(error) is Throttled
        assert error.retry_after == 3.0


async def test_a_reply_is_read_up_to_its_bound_and_no_further(upstream, door):
    exact = answer(200, {"output": "x" * 100})
    upstream.script = [exact, answer(200, {"output": "x" * 101}), exact]
    transport = door(max_reply_bytes=len(json.dumps({"output": "x" * 100})))
    assert (await transport.call(a_call())).output == "x" * 100
    assert "malformed answer: more than 114 bytes" in str(await failure(transport))
    assert (await transport.call(a_call())).output == "x" * 100


async def test_an_input_that_is_no_json_is_the_callers_mistake_and_is_never_sent(upstream, door):
    error = await failure(door(), input={"when": object()})
    assert type(error) is Permanent
    assert (error.outcome, error.charged) == ("not_started", "no")
    assert upstream.connections == 0


async def test_a_cancelled_call_hangs_up_and_the_next_one_gets_a_clean_connection(upstream, door):
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{" + Upstream.HANG
    upstream.script = [half, answer(body={"output": "next"})]
    transport = door(max_connections=1)
    task = asyncio.create_task(transport.call(a_call()))
    await upstream.has_had(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.closed_by_client.wait()
    assert (await transport.call(a_call())).output == "next"
    assert upstream.connections == 2


async def test_a_call_cancelled_at_any_step_gives_its_connection_back(upstream, door):
    upstream.script = [answer(body={"output": 1})] * 1_000
    transport = door(max_connections=1)
    outcomes = set()
    for steps in range(100):
        task = asyncio.create_task(transport.call(a_call()))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        outcomes |= {type(outcome) for outcome in await asyncio.gather(task, return_exceptions=True)}
    assert outcomes == {asyncio.CancelledError, ProviderReply}
    # The pool has two connections; a lost one would leave one of these two waiting for ever.
    upstream.script = [Upstream.HANG, Upstream.HANG]
    upstream.requests.clear()
    last = [asyncio.create_task(transport.call(a_call())) for _ in range(2)]
    await upstream.has_had(2)
    for task in last:
        task.cancel()
        task.cancel("twice")
    assert {type(outcome) for outcome in await asyncio.gather(*last, return_exceptions=True)} == {
        asyncio.CancelledError
    }


async def test_a_call_that_finds_no_free_connection_never_ran(upstream, door):
    upstream.script = [Upstream.HANG, Upstream.HANG]
    transport = door(max_connections=1)
    busy = [asyncio.create_task(transport.call(a_call())) for _ in range(2)]
    await upstream.has_had(2)
    error = await failure(transport, timeout=0.05)
    assert type(error) is BulkheadFull
    assert error.outcome == "not_started"
    assert len(upstream.requests) == 2
    for task in busy:
        task.cancel()
    assert [type(result) for result in await asyncio.gather(*busy, return_exceptions=True)] == [
        asyncio.CancelledError
    ] * 2


async def test_health_is_a_get_at_the_root_of_the_host(upstream, door):
    upstream.script = [answer(200, b"ok"), answer(503), Upstream.CLOSE]
    transport = door(idempotent="no")
    await transport.check(timeout=FAR)
    assert upstream.requests[0][0] == "GET /health HTTP/1.1"
    for _ in range(2):
        with pytest.raises(Transient):
            await transport.check(timeout=FAR)


async def test_a_closed_transport_opens_again_for_the_next_call(upstream, door):
    """It may be one for several gateways, each of which closes it when it is idle."""
    upstream.script = [answer(body={"output": 1}), answer(body={"output": 2})]
    transport = door()
    assert repr(transport).endswith("unused, idempotent='key')")
    await transport.call(a_call())
    await transport.aclose()
    await transport.aclose()
    assert repr(transport).endswith("closed, idempotent='key')")
    assert (await transport.call(a_call())).output == 2
    assert upstream.connections == 2


async def test_a_call_over_a_wire_of_ones_own_that_is_closed_never_ran(upstream, door):
    transport = door(wire=AiohttpWire(), paid=True, idempotent="no")
    await transport.aclose()
    with pytest.raises(ConnectionFailed, match="closed before the request was sent"):
        await transport.call(a_call())
    assert upstream.connections == 0


async def test_aclose_closes_the_idle_connections(upstream, door):
    upstream.script = [answer(body={"output": 1})]
    transport = door()
    await transport.call(a_call())
    await transport.aclose()
    await upstream.closed_by_client.wait()
    assert upstream.connections == 1


@pytest.mark.parametrize("url", ["ftp://host/", "host:80", "/path", "http://", "http://[::1"])
def test_a_url_that_cannot_be_called_is_refused_when_made(url):
    with pytest.raises(ValueError, match="url"):
        HttpTransport("alder", url, paid=False, idempotent="no")


@pytest.mark.parametrize(("name", "value"), [("A B", "x"), ("", "x"), ("Key", "a\r\nb"), ("Key", "ä")])
def test_a_header_that_cannot_be_sent_is_refused_without_showing_its_value(name, value):
    with pytest.raises(ValueError, match="header") as caught:
        HttpTransport("alder", "http://host/", paid=False, idempotent="no", headers={name: value})
    assert value not in str(caught.value) or value == "x"


def test_the_password_of_a_url_is_not_shown():
    transport = HttpTransport("alder", "http://me:secret@host/", paid=False, idempotent="no")
    assert "secret" not in repr(transport)


def test_a_pool_needs_a_connection():
    with pytest.raises(ValueError, match="max_connections must be >= 1, got 0"):
        HttpTransport("alder", "http://host/", paid=False, idempotent="no", max_connections=0)


def test_an_invalid_health_path_is_refused_when_the_transport_is_made():
    with pytest.raises(ValueError, match=r"health_path .* cannot be joined to http:"):
        HttpTransport("acme", "http://127.0.0.1/", paid=False, idempotent="no", health_path="/\n")


OWN_ERROR = {"error": {"type": "api_error", "message": "internal"}}


@pytest.mark.parametrize(
    ("reply", "charged"),
    [
        (answer(500, OWN_ERROR), "no"),
        (answer(529, OWN_ERROR), "no"),
        (answer(500, {}, X_Request_Id="r-1"), "held"),
        (answer(500, b"<html>Internal Server Error</html>", X_Request_Id="r-1"), "held"),
        (answer(502, OWN_ERROR), "held"),
        (answer(504, OWN_ERROR), "held"),
        (answer(409, OWN_ERROR), "held"),
        (answer(200, {"error": {"code": 500, "message": "internal"}}), "held"),
        (answer(500, OWN_ERROR)[:-20] + Upstream.CLOSE, "held"),
    ],
)
async def test_only_an_error_that_the_provider_answers_itself_is_uncharged_by_its_declaration(
    upstream: Upstream, reply: bytes, charged: str
):
    upstream.script = [reply, reply]
    declared = HttpTransport("alder", upstream.url, paid=True, idempotent="no", charges_errors=False)
    silent = HttpTransport("alder", upstream.url, paid=True, idempotent="no")
    try:
        assert (await failure(declared)).charged == charged
        assert (await failure(silent)).charged == "held"
    finally:
        await declared.aclose()
        await silent.aclose()
