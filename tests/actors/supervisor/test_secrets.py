"""A planted secret is looked for in all that a market shows while its calls fail in every way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import traceback

import msgspec
import pytest
from loguru import logger

from actors.batch import Failed, Unknown, robust_batch
from actors.command.results_file import result_line
from actors.errors import CallFailed
from actors.market import Listing, Market, load_market
from actors.monitor import Monitor
from actors.policies import Retry
from actors.providers import Provider
from actors.supervisor import GetStatus, Supervisor
from actors.supervisor.messages import SmartRequest
from actors.transports import FunctionTransport
from runtime import ActorSystem, Event
from tests.actors.transports.http_upstream import Upstream, answer

KEY, PASSWORD, QUERY, PATH = "sk-planted-0123456789", "pass-planted-1", "query-planted-1", "path-planted-1"
PLANTED = (
    "planted",
    base64.b64encode(f"me:{PASSWORD}".encode()).decode(),
    base64.b64encode(KEY.encode()).decode()[:20],
)
ECHO = (
    f"Authorization: Bearer {KEY} / {KEY[:15]}, me:{PASSWORD} {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}, "
    f"/{PATH}?key={QUERY}"
)
FAILURES = {
    "a-401": answer(401, {"error": {"message": f"words of 401: {ECHO}"}}),
    "a-400-page": answer(400, f"words of 400\r\n{ECHO}".encode()),
    "a-500": answer(500, {"message": f"words of 500: {ECHO}"}),
    "a-503": answer(503, {"detail": f"words of 503: {ECHO}"}),
    "an-error-in-a-200": answer(200, {"error": {"message": f"words of 200: {ECHO}", "echo": ECHO}}),
    "a-malformed-200": answer(200, f'{{"output": 1, "cost": "{ECHO}"'.encode()),
    "a-cut": answer(200, {"output": ECHO})[:-20] + Upstream.CLOSE,
    "a-garbled-head": f"HTTP/1.1 {ECHO}\r\n\r\n".encode(),
    "a-timeout": Upstream.HANG,
}
ENTRY = """
[[providers]]
name = "{name}"
services = ["{name}"]
url = "http://me:${{PLANTED_PASSWORD}}@127.0.0.1:{port}/${{PLANTED_PATH}}?key=${{PLANTED_QUERY}}"
health_path = "/health?key=${{PLANTED_QUERY}}"
headers = {{ Authorization = "Bearer ${{PLANTED_KEY}}" }}
price = "0.01"
timeout = 0.3
"""


async def opened(stack: contextlib.AsyncExitStack, step: bytes) -> int:
    """Start a provider that answers whatever is asked by `step`, and return its port."""
    upstream = Upstream()
    upstream.script = [step] * 100
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    stack.push_async_callback(upstream.stop)
    stack.callback(server.close)
    return server.sockets[0].getsockname()[1]


def buggy(name: str) -> Listing:
    """Return a provider behind a transport with a bug, in whose frames the key stands."""

    class Buggy(FunctionTransport):
        async def call(self, call: object) -> object:  # type: ignore[override]
            headers = {"Authorization": f"Bearer {KEY}"}
            raise ValueError(f"{len(headers['Authorization'])} is too long")

    async def never(_call: object) -> None: ...

    return Listing(
        provider=Provider(name=name, services={name}, address=f"http://me:{PASSWORD}@host/?key={QUERY}"),
        transport=lambda: Buggy(never, paid=True, idempotent="no"),
    )


@pytest.fixture
def environ(monkeypatch):
    values = {"KEY": KEY, "PASSWORD": PASSWORD, "QUERY": QUERY, "PATH": PATH}
    for name, value in values.items():
        monkeypatch.setenv(f"PLANTED_{name}", value)


@pytest.mark.real_time
@pytest.mark.usefixtures("environ")
async def test_no_secret_is_shown_by_a_market_that_fails(tmp_path):
    shown: list[str] = []
    sink = logger.add(shown.append, level=0, backtrace=True, diagnose=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(logger.remove, sink)
        entries = [ENTRY.format(name=name, port=await opened(stack, step)) for name, step in FAILURES.items()]
        entries.append(ENTRY.format(name="a-refused-connect", port=9))
        (tmp_path / "market.toml").write_text("".join(entries))
        market = load_market(tmp_path / "market.toml")
        market = Market(providers=[*market.providers, buggy("a-bug")], retry=Retry(max_retries=1, base=0.01))
        system = await stack.enter_async_context(ActorSystem("s"))
        system.events.subscribe(Event, lambda event: shown.append(repr(event)))
        system.spawn(lambda: Monitor(log_requests=True))
        supervisor = system.spawn(lambda: Supervisor(market))
        names = [listing.provider.name for listing in market.providers]
        requests = [SmartRequest(service=name, input={"text": "hello"}, timeout=2.0) for name in names]
        async with robust_batch(supervisor, requests, max_concurrency=20) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Failed | Unknown)
                shown.append(repr(outcome))
                shown.append(msgspec.json.encode(result_line(1, outcome, cost=0, attempts=1)).decode())
                shown.append("".join(traceback.format_exception(outcome.error)))
                assert isinstance(outcome.error, CallFailed)
                shown.append(outcome.error.said)
        shown.append(repr(await supervisor.ask(GetStatus(check_health=True), timeout=5.0)))
        shown += map(repr, (market, *market.providers, *(listing.transport for listing in market.providers)))
        for listing in market.providers:
            transport = listing.transport()
            shown.append(repr(transport))
            with contextlib.suppress(CallFailed):
                await transport.check(timeout=0.2)
            await transport.aclose()
    text = "\n".join(shown)
    for kind in (200, 400, 401, 500, 503):
        assert f"words of {kind}" in text
    assert "Traceback" in text
    assert [line for line in text.splitlines() if any(secret in line for secret in PLANTED)] == []


async def test_the_words_of_a_provider_reach_no_other_request():
    """What a provider quotes of one tenant's input is in no answer, error or status that another tenant gets."""

    async def refuse(call: object) -> str:
        if call.input == "other":  # type: ignore[attr-defined]
            return "fine"
        raise RuntimeError("temporarily unable to read <the prompt of one>")

    def listing(name: str) -> Listing:
        return Listing(
            provider=Provider(name=name, services={"read"}),
            transport=lambda: FunctionTransport(refuse, paid=False, idempotent="repeatable", provider=name),
        )

    market = Market(providers=[listing("alder"), listing("birch")], retry=Retry(max_retries=1, base=0.01))
    seen: list[str] = []
    async with ActorSystem("s", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        for _ in range(20):
            with pytest.raises(CallFailed) as caught:
                await supervisor.ask(SmartRequest(service="read", input="one", timeout=5.0, tenant="one"), timeout=9.0)
            try:
                answer = await supervisor.ask(
                    SmartRequest(service="read", input="other", timeout=0.5, tenant="other"), timeout=9.0
                )
                seen.append(repr(answer))
            except CallFailed as error:
                seen += [str(error), repr(error), "".join(traceback.format_exception(error))]
            for question in (GetStatus(), GetStatus(check_health=True)):
                seen.append(repr(await supervisor.ask(question, timeout=5.0)))
    assert "the prompt of one" in str(caught.value) or "breaker" in str(caught.value)
    assert any("breaker" in one for one in seen)
    assert [one for one in seen if "the prompt" in one] == []
