"""Whatever is answered or raised, a call that its server has counted is never said to have cost nothing.

Servers keep what they declare: one that does not charge for its own errors has not counted a call that it answers with
an error, and none refuses what it has counted, as 400, 402, 429 or a 503 in its own words do. The proxies before them
declare nothing: they replace any answer, of a call that was counted too, with pages and words of their own.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from actors import CallFailed, ProviderCall, to_micros
from actors.errors import OutcomeUnknown, classify
from actors.errors.bodies import error_in_body
from actors.errors.classification import classify_status, is_own_answer
from actors.errors.dialects import AMBIGUOUS, SAID_BY_PROXIES, dialects
from actors.errors.families import CHARGES, OUTCOMES
from actors.errors.wording import decoded
from actors.transports.http import HttpTransport
from tests.actors.errors.test_error_answers import ANSWERS, SayingWire, body_of
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transports.transport import Idempotent

PARTS = 10
COUNT = repeated(10_000, part=50)
"""For each of the parts, which together make 100,000."""

NEUTRAL = (
    "internal",
    "error",
    "the model",
    "failed",
    "while",
    "at step 7",
    "unexpectedly",
    "worker",
    "crashed",
    "please retry",
)
"""Of what counted calls say of themselves; what refuses a call is not among them."""
PROXY_TEXTS = (
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
    "upstream connect error or disconnect/reset before headers. reset reason: local reset",
    "upstream request timeout",
    "Error 503 first byte timeout",
    "Error 503 Backend fetch failed",
    "The upstream server is timing out",
    "An invalid response was received from the upstream server",
    "The origin timed out.",
    "Deadline expired before operation could complete.",
    "stream timeout",
    "socket hang up",
)
TITLES = ("Application Error", "503 Service Temporarily Unavailable", "We are sorry", *PROXY_TEXTS)
PAGES = ("<html><head><title>{0}</title></head></html>", "<!DOCTYPE html><html><body><h1>{0}</h1></body></html>")
AT_WORK = sorted((AMBIGUOUS | {500, 501, 502, 504, 505, 507, 508, 520, 524, 529, 598, 599, 999}) - {302, 303})
BY_PROXY = sorted(SAID_BY_PROXIES | {500, 503, 504})


class Server(NamedTuple):
    """What a provider declares, and whether it has counted the call."""

    paid: bool
    charges_errors: bool
    idempotent: Idempotent
    counted: bool


class Told(NamedTuple):
    """What arrives of an answer."""

    status: int
    headers: dict[str, str]
    body: str


def any_server(chance: random.Random) -> Server:
    paid = chance.random() < 0.8
    return Server(
        paid=paid,
        charges_errors=chance.random() < 0.5,
        idempotent=chance.choice(["no", "key", "repeatable"]),
        counted=paid and chance.random() < 0.6,
    )


def any_text(chance: random.Random) -> str:
    return "".join(
        chr(chance.choice([chance.randrange(32, 127), chance.randrange(0x20, 0x3000)]))
        for _ in range(chance.randrange(30))
    )


def any_json(chance: random.Random, text: Callable[[random.Random], str], depth: int = 0) -> Any:
    match chance.randrange(4 if depth > 3 else 6):
        case 0:
            return None
        case 1:
            return chance.choice([True, False, 0, -7, 3.5])
        case 2 | 3:
            return text(chance)
        case 4:
            return [any_json(chance, text, depth + 1) for _ in range(chance.randrange(3))]
        case _:
            names = ["error", "errors", "message", "detail", "details", "reason", "title", "x", "metadata", "input"]
            return {chance.choice(names): any_json(chance, text, depth + 1) for _ in range(chance.randrange(4))}


def neutral(chance: random.Random) -> str:
    return " ".join(chance.choices(NEUTRAL, k=chance.randrange(1, 6)))


def any_headers(chance: random.Random) -> dict[str, str]:
    names = ["x-request-id", "request-id", "retry-after", "server", "x-amzn-requestid", "content-type", "via"]
    return {name: any_text(chance) for name in chance.sample(names, chance.randrange(4))}


def any_refusal(chance: random.Random) -> Told:
    """Draw an answer of a call that was not counted: anything at all, words of real refusals among it."""
    if chance.random() < 0.4:
        row = chance.choice(ANSWERS)
        status = row["status"] if chance.random() < 0.5 else chance.randrange(300, 1000)
        return Told(max(300, status), any_headers(chance), body_of(row).decode())
    row = chance.choice(dialects().rows)
    code = chance.choice(sorted(row.codes) or ["x"])
    body = chance.choice(
        [any_text(chance), json.dumps(any_json(chance, any_text)), json.dumps({"error": {"code": code}})]
    )
    return Told(chance.randrange(300, 1000), any_headers(chance), body)


def own_error(chance: random.Random) -> Told:
    """Draw the answer of a server that has counted a call and then failed."""
    form = {"error": {"type": "api_error", "message": neutral(chance)}}
    body = chance.choice([form, {"detail": neutral(chance)}, {"message": neutral(chance)}, any_json(chance, neutral)])
    return Told(chance.choice(AT_WORK), any_headers(chance), json.dumps(body))


def proxys(chance: random.Random) -> Told:
    """Draw what a proxy says instead of the answer, whatever became of the call."""
    text = chance.choice(PROXY_TEXTS)
    status = chance.choice(BY_PROXY)
    forms = [text, chance.choice(PAGES).format(chance.choice(TITLES)), json.dumps({"message": text})]
    if status != 503:
        # A 503 without words, or in the form of the provider, says that nothing was done.
        forms += ["", "Internal Server Error", json.dumps({"message": "Internal Server Error"})]
    return Told(status, any_headers(chance), chance.choice(forms))


def answer_of(server: Server, chance: random.Random) -> Told:
    if chance.random() < 0.4:
        return proxys(chance)
    if not server.counted:
        return any_refusal(chance)
    return own_error(chance) if server.charges_errors else proxys(chance)


def assert_typed(failure: object, server: Server, told: object) -> None:
    assert isinstance(failure, CallFailed), told
    assert failure.outcome in OUTCOMES, told
    assert failure.charged in CHARGES, told
    if server.counted:
        assert failure.charged != "no", (told, failure)
    if not server.paid:
        assert failure.charged == "no", (told, failure)
    if server.paid and server.idempotent == "no" and failure.outcome == "unknown":
        assert isinstance(failure, OutcomeUnknown), (told, failure)
        assert not failure.retryable


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_status_headers_and_body_arrive_a_counted_call_is_never_free(part: int):
    chance = random.Random(part)
    for _ in range(COUNT):
        server = any_server(chance)
        told = answer_of(server, chance)
        failure = classify_status(
            told.status,
            provider=chance.choice(["alder", "openai", "gemini", "xai"]),
            headers=told.headers,
            body=told.body,
            paid=server.paid,
            idempotent=not server.paid or server.idempotent != "no",
            uncharged=server.paid and not server.charges_errors and is_own_answer(told.headers, decoded(told.body)),
        )
        assert_typed(failure, server, told)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_error_stands_inside_a_success_a_counted_call_is_never_free(part: int):
    chance = random.Random(part)
    for _ in range(COUNT):
        server = any_server(chance)
        error: Any = {
            "message": neutral(chance),
            "code": chance.choice([500, 502, 504, "server_error", -32603, 7, None]),
        }
        if not server.counted:
            error = any_json(chance, any_text)
        body = chance.choice([{"error": error}, [{"error": error}], {"errors": [error]}])
        failure = error_in_body(
            json.dumps(body), paid=server.paid, idempotent=not server.paid or server.idempotent != "no"
        )
        if failure is not None or server.counted:
            assert_typed(failure, server, body)


class ClientError(Exception):
    """As a client library raises it, with the status of an answer."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status_code = status


def any_exception(server: Server, chance: random.Random) -> Exception:
    told = answer_of(server, chance)
    broken = [TimeoutError, ConnectionResetError, BrokenPipeError, EOFError, OSError]
    choices: list[Exception] = [ClientError(told.body, told.status), chance.choice(broken)(any_text(chance))]
    if server.counted:
        choices.append(RuntimeError(neutral(chance)))
    else:
        choices += [RuntimeError(any_text(chance)), ConnectionRefusedError(), ValueError(any_text(chance))]
    return chance.choice(choices)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_exception_is_raised_a_counted_call_is_never_free(part: int):
    chance = random.Random(part)
    for _ in range(COUNT):
        server = any_server(chance)
        error = any_exception(server, chance)
        failure = classify(
            error,
            provider="alder",
            paid=server.paid,
            idempotent=not server.paid or server.idempotent != "no",
        )
        assert_typed(failure, server, error)


async def test_whatever_arrives_over_the_transport_ends_typed_and_never_free_if_counted():
    chance = random.Random(0)
    for _ in range(COUNT // 2):
        server = any_server(chance)
        told = answer_of(server, chance)
        if not server.counted and chance.random() < 0.3:
            told = told._replace(status=200)
        wire = SayingWire(told.status, told.headers, told.body.encode("utf-8", "replace"))
        transport = HttpTransport(
            "alder",
            "https://alder.example/v1",
            paid=server.paid,
            idempotent=server.idempotent,
            charges_errors=server.charges_errors,
            wire=wire,
        )
        call = ProviderCall(
            service="s", input="x", request_id="r", idempotency_key="k", max_cost=to_micros("0.01"), timeout=3.0
        )
        try:
            await transport.call(call)
        except CallFailed as failure:
            assert_typed(failure, server, told)
        else:
            assert told.status == 200
        await transport.aclose()
