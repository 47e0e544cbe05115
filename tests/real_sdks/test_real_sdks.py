"""Real errors of real SDKs, raised against a server on loopback: the right family, wait and charge.

They come with the extra `sdks`; what is not installed is left out, and named in one line.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import CallFailed, ConnectionFailed, OutcomeUnknown, Permanent, Throttled, Transient
from actors.transports.function import FunctionTransport
from actors.transports.transport import ProviderCall
from tests.real_sdks.clients import CLIENTS, INSTALLED, MISSING, RETRYING
from tests.real_sdks.scripted_server import Answer, Cut, Stall, Step, refused_url, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.slow,
    pytest.mark.real_time,
    # What the SDKs warn of, and leave open, is not what is tested.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # It would fetch its prices.


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let what the SDKs leave open end here, and not as a warning in a later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


async def failure_of(name: str, url: str, *, retries: int = 0, **declared: Any) -> CallFailed:
    call_client = CLIENTS[name][1]

    async def function(_call: ProviderCall) -> Any:
        if inspect.iscoroutinefunction(call_client):
            return await call_client(url, retries)
        return await asyncio.to_thread(call_client, url, retries)

    call = ProviderCall(service="s", input="x", request_id="r", idempotency_key="k", max_cost=1, timeout=300.0)
    with pytest.raises(CallFailed) as caught:
        await FunctionTransport(function, paid=True, idempotent="no", provider="acme", **declared).call(call)
    return caught.value


def says(message: str, **fields: str) -> dict[str, Any]:
    return {"error": {"message": message} | fields}


TOO_MANY = Answer(429, says("Slow down", code="rate_limit_exceeded"), {"retry-after": "7"})
TOO_LONG = says("This model's maximum context length is 100 tokens", code="context_length_exceeded")
STEPS: list[tuple[Step, type[CallFailed], int | None, str]] = [
    (TOO_MANY, Throttled, 429, "no"),
    (Answer(400, TOO_LONG), Permanent, 400, "no"),
    (Answer(401, says("Incorrect API key provided")), Permanent, 401, "no"),
    (Answer(402, says("Payment Required")), CallFailed, 402, "no"),
    (Answer(500, says("The server had an error")), OutcomeUnknown, 500, "held"),
    (Answer(503, says("The engine is currently overloaded")), Transient, 503, "no"),
    (Stall(), OutcomeUnknown, None, "held"),
    (Cut(), OutcomeUnknown, None, "held"),
]


def test_every_package_is_installed():
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}; pip install '.[sdks]'")


@pytest.mark.parametrize(("step", "family", "status", "charged"), STEPS, ids=lambda value: str(value)[:24])
@pytest.mark.parametrize("name", INSTALLED)
async def test_an_error_of_a_client_is_what_its_server_said(name, step, family, status, charged):
    with serving(step) as server:
        failure = await failure_of(name, server.url)
    assert isinstance(failure, family)
    assert failure.charged == charged
    if status is not None:
        assert failure.status == status
    if step is TOO_MANY:
        assert failure.retry_after == 7.0


@pytest.mark.parametrize("name", INSTALLED)
async def test_a_connection_that_was_never_made_holds_nothing(name):
    for url in (refused_url(), "http://nothing.invalid"):
        failure = await failure_of(name, url)
        assert (type(failure), failure.outcome, failure.charged) == (ConnectionFailed, "not_started", "no")


@pytest.mark.parametrize("name", [name for name in RETRYING if name in INSTALLED])
@pytest.mark.parametrize("declared", [None, True, False])
async def test_a_first_try_that_was_read_and_stalled_is_held_if_the_next_is_refused(name, declared):
    with serving(Stall(closes=True)) as server:
        failure = await failure_of(name, server.url, retries=1, client_retries=declared)
    assert server.calls == 1
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")


@pytest.mark.parametrize("name", [name for name in RETRYING if name in INSTALLED and name != "requests"])
async def test_a_first_try_that_stalled_is_held_if_the_next_is_answered_with_429(name):
    quick = TOO_MANY._replace(headers={})
    with serving(Stall(), quick) as server:
        failure = await failure_of(name, server.url, retries=1)
    assert server.calls == 2
    assert (type(failure), failure.charged) == (OutcomeUnknown, "held")


@pytest.mark.parametrize("status", [303, 307])
@pytest.mark.parametrize("name", [name for name in ("aiohttp", "requests", "urllib", "openai") if name in INSTALLED])
async def test_a_redirect_to_where_connections_are_refused_is_held(name, status):
    with serving(Answer(status, {}, {"location": refused_url()})) as server:
        failure = await failure_of(name, server.url)
    assert failure.charged == "held"
    assert server.calls == 1
