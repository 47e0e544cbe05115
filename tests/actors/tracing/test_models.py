"""Calls of models by the semantic conventions for generative AI, old and new, and one request by its id everywhere."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import asynccontextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from actors import Ledger, Market, Supervisor
from actors.command.explain import show_explanation
from actors.dashboard import GetUpdate, Update, Viewport, Watcher
from actors.errors import CallFailed
from actors.fake import FakeConfig, FakeModel, FaultPlan
from actors.fake.faults import FakeOutage
from actors.models import compatible
from actors.serve import DoorConfig
from actors.serve.app import DoorApp, make_door
from actors.serve.in_process import in_process_transport
from actors.supervisor import smart_stream
from actors.tracing import LATEST, OLD
from runtime import ActorSystem
from tests.actors.tracing.stage import Traced, own, traced
from tests.fake_wire import FakeWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET_PROMPT, SECRET_KEY = "the prompt that is nobody's business", "sk-very-secret"
WORDS = "words of a provider"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Heard(FakeWire):
    """A wire that keeps the headers of what it sends."""

    def __init__(self, *faults: Any) -> None:
        super().__init__(FakeConfig(models=(FakeModel(name="swift"),), plan=FaultPlan(faults=faults)))
        self.headers: list[dict[str, str]] = []

    async def send(self, request: Any, progress: Any) -> Any:
        self.headers.append(request.headers)
        return await super().send(request, progress)


def listed(wire: Any, preset: str = "openai", **options: Any) -> Any:
    return compatible(
        "swift", preset=preset, api_key=SECRET_KEY, wire=wire, **{"name": "alder", "price": "0.01"} | options
    )


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": SECRET_PROMPT}], "max_tokens": 50, "temperature": 0.5} | fields


@pytest.mark.parametrize(
    ("conventions", "named"),
    [(OLD, {"gen_ai.system": "openai"}), (LATEST, {"gen_ai.provider.name": "openai"})],
)
async def test_a_call_of_a_model_is_told_by_the_conventions(conventions, named):
    wire = Heard()
    async with traced(listed(wire), tracing={"conventions": conventions}) as stage:
        result = await stage.request(service="chat", input=body())
    (call,) = stage.named("chat swift")
    told = {name: value for name, value in call.attributes.items() if not name.startswith("understudy.")}
    usage = result.output["usage"]
    assert told == {
        **named,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "swift",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.id": result.output["id"],
        "gen_ai.response.model": "swift",
        "gen_ai.response.finish_reasons": (result.output["choices"][0]["finish_reason"],),
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "server.address": "api.openai.com",
        "server.port": 443,
    }
    assert call.kind.name == "CLIENT"
    trace, span = f"{call.context.trace_id:032x}", f"{call.context.span_id:016x}"
    assert wire.headers[-1]["traceparent"].startswith(f"00-{trace}-{span}-0")


async def test_a_stream_of_a_model_is_told_by_the_latest_names():
    async with (
        traced(listed(Heard()), tracing={"conventions": LATEST}) as stage,
        smart_stream(stage.ref, service="chat", input=body()) as stream,
    ):
        async for _ in stream:
            pass
    (call,) = stage.named("chat swift")
    assert call.attributes["gen_ai.request.stream"] is True
    assert call.attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert call.attributes["gen_ai.usage.output_tokens"] > 0


async def test_no_span_has_a_prompt_an_answer_a_key_or_the_words_of_a_provider():
    async with traced(listed(Heard()), listed(Heard(FakeOutage(message=WORDS)), name="birch")) as stage:
        answers = []
        for strategy in ("cheapest", "fastest") * 5:
            try:
                answers.append(await stage.request(service="chat", input=body(), strategy=strategy, timeout=5.0))
            except CallFailed:
                continue
    told = "\n".join(one.to_json() for one in stage.spans)
    contents = [one.output["choices"][0]["message"]["content"] for one in answers]
    assert contents
    assert all(content not in told for content in (*contents, SECRET_PROMPT, SECRET_KEY, WORDS))


@asynccontextmanager
async def door(journal: Any) -> AsyncIterator[tuple[Traced, httpx.AsyncClient, Any]]:
    """Enter a front door over one server, traced, logged and watched."""
    stage = Traced(sample=0.0)
    market = Market(providers=[listed(Heard())])
    async with ActorSystem("door", log="json") as system:
        watcher = system.spawn(lambda: Watcher(system))
        ledger = system.spawn(lambda: Ledger(journal=str(journal)))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger, tracing=stage.tracing))
        app = DoorApp(make_door(supervisor, market, DoorConfig(), None))
        transport = in_process_transport(app, library=httpx)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=None) as client:  # noqa: S113
            yield stage, client, watcher


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/services/chat"])
async def test_one_request_is_followed_from_the_client_to_log_span_receipt_and_page(tmp_path, path, capfd):
    written = io.StringIO()
    journal = tmp_path / "door.journal"
    with redirect_stderr(written):
        async with door(journal) as (stage, client, watcher):
            headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "Idempotency-Key": "order 17"}
            asked = body(**({"model": "swift"} if path.endswith("completions") else {}))
            response = await client.post(path, json=asked, headers=headers)
            assert response.status_code == 200
            request_id = response.headers["x-request-id"]
            await asyncio.sleep(0.3)
            update = await watcher.ask(GetUpdate(look=Viewport(request=request_id)), timeout=5.0)
    page = msgspec.json.decode(update, type=Update)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    (line,) = [one for one in lines if one.get("request_id") == request_id]
    (request,) = [one for one in stage.named("request") if own(one)["request_id"] == request_id]
    assert page.trace is not None
    assert page.trace.request_id == request_id
    assert line["provider"] == own(request)["provider"] == "alder"
    assert f"{request.context.trace_id:032x}" == TRACE
    assert (own(request)["cost"], line["cost"]) == (10_000, 10_000)
    assert show_explanation(str(journal), own(request)["key"], as_json=True) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["cost"], [one["provider"] for one in told["calls"]]) == ("0.01", ["alder"])
