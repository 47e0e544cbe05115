"""The front door as a client sees it: every protocol, plain and streamed, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from actors import GetStatus
from actors.fake import FakeModel, FakePrice, FaultPlan
from actors.fake.faults import FakeCut, FakeErrorEvent, FakeNoUsage, FakeOddAnswer, FakeOutage, FakeStall
from actors.ledger import GetStatement
from actors.ledger.entries import LedgerEntry
from actors.serve import Alias, DoorConfig, KeyRing, Tenant, new_key
from actors.serve.switching import go_by
from actors.serve.token_log import TokenLog
from actors.tariffs import Tariff
from tests.actors.serve.doors import HELLO, serving
from tests.proofs import repeated

if TYPE_CHECKING:
    import httpx

SLOW = FakeModel(name="slow", latency=25.0, token_speed=50.0, output_tokens=20.0)
ASKED = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 8},
    "/v1/responses": {"input": "Say hello.", "max_output_tokens": 8},
    "/v1/messages": {"messages": HELLO, "max_tokens": 8},
}


def events_of(text: str) -> list[dict]:
    lines = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def read_all(stage, body) -> None:
    async with stage.client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_lines():
            pass


async def at_rest(stage) -> bool:
    await asyncio.sleep(5.0)
    statuses = await stage.supervisor.ask(GetStatus(), timeout=5.0)
    return stage.door.under_way == 0 and all(status.under_way == 0 for status in statuses)


@pytest.mark.parametrize("path", ASKED)
async def test_each_protocol_is_answered_under_the_name_that_was_asked_for(path):
    async with serving("swift") as stage:
        response = await stage.post(path, ASKED[path] | {"model": "cheapest"})
        assert response.status_code == 200, response.text
        assert response.json()["model"] == "cheapest"
        told = response.headers
        assert (told["x-understudy-provider"], told["x-understudy-model"]) == ("alder-0", "swift")
        assert (told["x-understudy-attempts"], "x-understudy-replayed" in told) == ("1", False)
        usage = response.json()["usage"]
        given = usage.get("prompt_tokens", usage.get("input_tokens"))
        made = usage.get("completion_tokens", usage.get("output_tokens"))
        assert float(told["x-understudy-cost"]) == pytest.approx((given + 2 * made) / 1e6)


@pytest.mark.parametrize("path", ASKED)
async def test_each_protocol_streams(path):
    async with serving("swift") as stage:
        response = await stage.post(path, ASKED[path] | {"model": "auto", "stream": True})
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        events = events_of(response.text)
        named = [one for event in events for one in (event, event.get("message"), event.get("response")) if one]
        assert {one["model"] for one in named if "model" in one} == {"auto"}
        kinds = [event.get("type", event.get("object")) for event in events]
        assert kinds[-1] in {"chat.completion.chunk", "response.incomplete", "message_stop"}
        assert ": understudy provider=alder-0 cost=0." in response.text
        assert response.text.endswith("data: [DONE]\n\n") == (path == "/v1/chat/completions")


async def test_the_usage_of_a_stream_goes_only_to_a_client_that_asked_for_it():
    async with serving("swift") as stage:
        plain = events_of((await stage.chat(stream=True, max_tokens=8)).text)
        assert plain
        assert not any("usage" in event for event in plain)
        wanted = await stage.chat(stream=True, max_tokens=8, stream_options={"include_usage": True})
        *_, last = events_of(wanted.text)
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 8
        assert last["understudy"]["provider"] == "alder-0"
        assert f"cost={last['understudy']['cost']} attempts=1" in wanted.text


async def test_a_failure_goes_to_the_next_provider_and_is_counted():
    async with serving("swift", "swift", faults=(FakeOutage(),), config=DoorConfig()) as stage:
        for stream in (False, True):
            response = await stage.chat(model="swift", stream=stream, max_tokens=5)
            assert response.status_code == 200
        assert "provider=alder-1" in response.text


async def test_the_status_of_a_stream_waits_for_its_first_piece():
    async with serving("swift", faults=(FakeOutage(status=503),)) as stage:
        response = await stage.chat(stream=True, max_tokens=5)
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "server_error"
        assert int(response.headers["retry-after"]) >= 1


async def test_a_late_first_piece_is_waited_for_with_comments():
    async with serving(SLOW) as stage:
        response = await stage.chat(stream=True, max_tokens=5)
        # Nothing for 10 s, then a comment at once and every 10 s.
        assert response.text.startswith(": waiting\n\n: waiting\n\ndata: ")
        assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(("path", "kind"), [("/v1/chat/completions", None), ("/v1/messages", "error")])
async def test_a_failure_after_the_status_is_an_event_of_the_protocol(path, kind):
    stall = FakeStall(seconds=12.0)
    async with serving(FakeModel(name="m", latency=0.1), faults=(stall, FakeOutage(since=0.0, share=0.0))) as stage:
        response = await stage.post(path, ASKED[path] | {"model": "auto", "stream": True}, x_understudy_timeout="11")
        assert response.status_code == 200
        *_, last = events_of(response.text)
        assert last.get("type") == kind
        assert last["error"]["message"]
        assert "[DONE]" not in response.text


async def test_a_stream_that_breaks_off_ends_with_an_error():
    async with serving(FakeModel(name="m", output_tokens=50.0), faults=(FakeCut(part=0.5),)) as stage:
        response = await stage.chat(stream=True)
        *_, last = events_of(response.text)
        assert "broke off" in last["error"]["message"]
        assert await at_rest(stage)


async def test_a_failure_says_after_how_many_calls_it_came():
    async with serving("swift", "swift", faults=(FakeOutage(),)) as stage:
        stage.servers[1].provider.set_plan(FaultPlan(faults=(FakeOutage(),)), now=0.0)
        whole = await stage.chat(stream=False)
        late = await stage.post(
            "/v1/chat/completions", {"model": "auto", "messages": HELLO, "stream": True}, x_understudy_timeout="1"
        )
        assert whole.status_code == late.status_code == 503
        assert int(whole.headers["x-understudy-attempts"]) == whole.json()["error"]["message"].count("\n  ") > 1


async def test_a_client_that_leaves_ends_its_call():
    async with serving(FakeModel(name="m", token_speed=10.0, output_tokens=500.0), caps={"acme": "1"}) as stage:
        for plain in (True, False):
            body = {"model": "auto", "messages": HELLO, "stream": not plain}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read_all(stage, body), 2.0)
            assert await at_rest(stage)


def cost_in(response: httpx.Response) -> Fraction:
    """Return the dollars that a client is told: in a header, or at the end of a stream."""
    told = re.search(r"^: understudy .*\bcost=(\S+)", response.text, re.MULTILINE)
    return Fraction(response.headers.get("x-understudy-cost") or (told.group(1) if told else "0"))


@pytest.mark.parametrize("odd", ["refusal", "content_filter", "empty"])
async def test_an_answer_that_is_refused_or_filtered_is_given_as_it_came_and_says_what_it_cost(odd):
    shown, kept = new_key("acme")
    terms: dict[str, Any] = {"config": DoorConfig(tenants={"acme": Tenant()}), "keys": KeyRing([kept])}
    async with serving("swift", faults=(FakeOddAnswer(answer=odd),), caps={"acme": "5"}, **terms) as stage:
        head, told = {"authorization": f"Bearer {shown}"}, Fraction(0)
        for number, key in enumerate(["k-1", "k-1", None]):  # The second is replayed, and costs nothing.
            for stream in (False, True):
                keyed = {} if key is None else {"idempotency_key": f"{key}-{stream}"}
                body = {"model": "auto", "messages": HELLO, "stream": stream}
                response = await stage.post("/v1/chat/completions", body, **head, **keyed)
                assert response.status_code == 200
                assert events_of(response.text) if stream else response.json()["choices"]
                assert (cost_in(response) > 0) == (number != 1)
                told += cost_in(response)
        statement = await stage.ledger.ask(GetStatement("acme"), timeout=5.0)
        assert told * 1_000_000 == statement.settled


@pytest.mark.parametrize("fault", [FakeErrorEvent(), FakeCut(part=0.5), FakeNoUsage()])
async def test_a_stream_that_fails_says_what_it_cost(fault):
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant()})
    async with serving("swift", faults=(fault,), caps={"acme": "5"}, config=config, keys=KeyRing([kept])) as stage:
        told = Fraction(0)
        for path, body in ASKED.items():
            answered = await stage.post(path, body | {"model": "auto", "stream": True}, x_api_key=shown)
            told += cost_in(answered)
            if "x-understudy-attempts" not in answered.headers:
                last = r": understudy .*cost=\S+ attempts=\d+.*\n\n(data: \[DONE\]\n\n)?\Z"
                assert re.search(last, answered.text)
        statement = await stage.ledger.ask(GetStatement("acme"), timeout=5.0)
        assert told * 1_000_000 == statement.settled > 0


async def test_an_unknown_model_is_told_what_is_near_it():
    async with serving("swift") as stage:
        for path, body in ASKED.items():
            response = await stage.post(path, body | {"model": "swfit"})
            assert response.status_code == 404
            assert "near it are swift" in response.json()["error"]["message"]
        assert (await stage.chat()).status_code == 200
        assert stage.calls == 1


async def test_what_is_not_spoken_says_so():
    async with serving("swift") as stage:
        for path, body in {
            "/v1/assistants": {},
            "/v1/responses": ASKED["/v1/responses"] | {"model": "auto", "previous_response_id": "resp_1"},
            "/v1/chat/completions": {"model": "auto"},
            "/v1/messages": {"model": "", "messages": HELLO},
        }.items():
            response = await stage.post(path, body)
            assert response.status_code in {400, 404}
            assert response.json()["error"]["message"]
            assert response.headers["x-request-id"]
        assert stage.calls == 0


async def test_names_are_aliases_models_and_words():
    aliases = {"smart": Alias(models=("swift",), strategy="cheapest")}
    async with serving("swift", "grand", config=DoorConfig(aliases=aliases)) as stage:
        listed = (await stage.client.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["smart", "auto", "cheapest", "fastest", "grand", "swift"]
        other = (await stage.client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
        assert [one["id"] for one in other["data"]] == [one["id"] for one in listed]
        assert other["has_more"] is False
        for name, model in (("smart", "swift"), ("grand", "grand"), ("swift", "swift")):
            assert (await stage.chat(model=name)).headers["x-understudy-model"] == model


async def test_a_key_gets_its_answer_again():
    async with serving("swift") as stage:
        first = await stage.chat()
        again = [await stage.post("/v1/chat/completions", {"model": "auto", "messages": HELLO}, idempotency_key="k-1")]
        again.append(
            await stage.post("/v1/chat/completions", {"model": "auto", "messages": HELLO}, idempotency_key="k-1")
        )
        assert stage.calls == 2
        assert [one.headers.get("x-understudy-replayed") for one in (first, *again)] == [None, None, "true"]
        assert float(again[1].headers["x-understudy-cost"]) == 0
        assert again[0].json() == again[1].json()
        other = await stage.post(
            "/v1/chat/completions", {"model": "auto", "messages": [*HELLO, *HELLO]}, idempotency_key="k-1"
        )
        assert other.status_code == 422
        assert other.headers["x-should-retry"] == "false"


async def test_a_cap_holds_among_a_thousand_requests():
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(budget="5.00")})
    async with serving("swift", config=config, keys=KeyRing([kept]), caps={"acme": "5.00"}, price="0.10") as stage:
        body = {"model": "auto", "messages": HELLO, "max_tokens": 5}
        head = {"authorization": f"Bearer {shown}"}
        asked = (stage.client.post("/v1/chat/completions", json=body, headers=head) for _ in range(1_000))
        statuses = [one.status_code for one in await asyncio.gather(*asked)]
        assert (statuses.count(200), statuses.count(402)) == (50, 950)
        statement = await stage.ledger.ask(GetStatement("acme"), timeout=5.0)
        assert (statement.settled, statement.reserved, statement.held) == (5_000_000, 0, 0)


@pytest.mark.parametrize("leaving", [repeated(300, at_least=60)])
async def test_a_cap_holds_at_every_entry_while_clients_leave_in_mid_stream(leaving: int):
    # At most 1,000 tokens of $0.0001 each: $0.10 is reserved, and what came until a client left is charged.
    model = FakeModel(name="m", price=FakePrice(input="0", output="100"), token_speed=50.0, output_tokens=1_000.0)
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(budget="5.00")})
    dice, statuses, seen = random.Random(leaving), Counter[int](), list[str]()
    served: dict[str, Any] = {"tariff": Tariff(input="0", output="100"), "limits": {"max_concurrency": 400}}
    async with serving(model, config=config, keys=KeyRing([kept]), caps={"acme": "5.00"}, **served) as stage:
        book = stage.ledger.recipient.actor.book
        head = {"authorization": f"Bearer {shown}"}

        def look(entry: LedgerEntry) -> None:
            state = book.statement("acme")
            if state.settled + state.held + state.reserved > 5_000_000:
                seen.append(f"{entry}: {state}")

        stage.system.events.subscribe(LedgerEntry, look)

        async def ask() -> None:
            await asyncio.sleep(dice.uniform(0.0, leaving / 20))
            body = {"model": "auto", "messages": HELLO, "max_tokens": 1_000, "stream": True}
            patience = dice.uniform(0.5, 15.0)
            with suppress(TimeoutError):
                async with (
                    asyncio.timeout(patience),
                    stage.client.stream("POST", "/v1/chat/completions", json=body, headers=head) as response,
                ):
                    statuses[response.status_code] += 1
                    state = book.statement("acme")
                    if response.status_code == 402 and state.available >= 100_100:
                        seen.append(f"refused, although {state.available} were left")
                    async for _ in response.aiter_lines():
                        pass

        await asyncio.gather(*(ask() for _ in range(leaving)))
        assert await at_rest(stage)
        assert seen == []
        statement = await stage.ledger.ask(GetStatement("acme"), timeout=5.0)
        charged = sum(server.provider.books.charged for server in stage.servers) * 1_000_000
        assert (statement.reserved, statement.held) == (0, 0)
        assert charged <= statement.settled <= 5_000_000
        assert statuses[200] > 0


async def test_a_door_that_closes_finishes_what_is_under_way():
    async with serving(FakeModel(name="m", latency=3.0, token_speed=1.0, output_tokens=60.0)) as stage:
        waiting = asyncio.create_task(stage.chat(max_tokens=2))
        streaming = asyncio.create_task(stage.chat(stream=True))
        await asyncio.sleep(1.0)
        stage.door.is_draining = True
        refused = await stage.chat()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (refused.headers["x-should-retry"], refused.headers["connection"]) == ("true", "close")
        assert (await stage.client.get("/readyz")).status_code == 503
        assert (await stage.client.get("/healthz")).status_code == 200
        await stage.door.until_idle(within=10.0)
        stage.door.end_all()
        assert (await waiting).status_code == 200
        *_, last = events_of((await streaming).text)
        assert last["error"]["code"] == "closing"
        assert await at_rest(stage)


async def test_any_service_of_the_market_is_served():
    async with serving("swift") as stage:
        response = await stage.post("/v1/services/swift", {"messages": HELLO})
        assert response.json()["output"]["choices"]
        assert (await stage.post("/v1/services/nothing", {})).status_code == 404


async def test_vectors_come_as_numbers_or_packed():
    async with serving(FakeModel(name="embed-1", kind="embedding")) as stage:
        plain = await stage.post("/v1/embeddings", {"model": "embed-1", "input": ["a", "b"]})
        packed = await stage.post(
            "/v1/embeddings", {"model": "embed-1", "input": ["a", "b"], "encoding_format": "base64"}
        )
        assert [one["index"] for one in plain.json()["data"]] == [0, 1]
        assert isinstance(packed.json()["data"][0]["embedding"], str)
        assert plain.headers["x-understudy-provider"] == "alder-0"
        assert (await stage.post("/v1/embeddings", {"model": "embed-1"})).status_code == 400


async def test_a_client_without_a_key_is_refused_before_its_body_is_read():
    shown, kept = new_key("acme")
    other, revoked = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(models=("swift",))})
    ring = KeyRing([kept, type(revoked)(id=revoked.id, sha256=revoked.sha256, tenant="acme", revoked=0.0)])
    async with serving("swift", "grand", config=config, keys=ring, caps={"acme": None}) as stage:
        good = {"x-api-key": shown}
        for headers in ({}, {"authorization": "Bearer usk-1-2"}, {"x-api-key": other}, {"x-api-key": shown[:-1]}):
            response = await stage.client.post("/v1/messages", content=b"no JSON", headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["type"] == "authentication_error"
        both = await stage.client.get("/v1/models", headers={"authorization": "Bearer usk-1-2", **good})
        assert both.status_code == 400
        listed = (await stage.client.get("/v1/models", headers=good)).json()["data"]
        assert "grand" not in {one["id"] for one in listed}
        for name, status in (("swift", 200), ("auto", 200), ("grand", 404)):
            body = {"model": name, "messages": HELLO}
            answer = await stage.client.post("/v1/chat/completions", json=body, headers=good)
            assert answer.status_code == status
            assert answer.headers.get("x-understudy-model", "swift") == "swift"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
async def test_a_web_page_of_elsewhere_cannot_spend(headers, status):
    async with serving("swift", config=DoorConfig(origins=("http://localhost:3000",))) as stage:
        request = {"content-type": "application/json"} | headers
        content = json.dumps({"model": "auto", "messages": HELLO}).encode()
        response = await stage.client.post("/v1/chat/completions", content=content, headers=request)
        assert response.status_code == status
        assert stage.calls == (status == 200)


@pytest.mark.parametrize(
    ("limits", "statuses", "code"),
    [
        ({"rate_limit": 0.5, "burst": 2}, [200, 200, 429, 429], "rate_limit_exceeded"),
        ({"max_under_way": 3, "max_waiting": 0}, [200, 200, 200, 429], "too_many_under_way"),
        ({"max_under_way": 1, "max_waiting": 2}, [200, 200, 200, 429], "too_many_under_way"),
        ({"max_under_way": 1}, [200] * 4, None),
        ({}, [200] * 4, None),
    ],
)
async def test_a_tenant_takes_no_more_of_the_door_than_it_may(limits, statuses, code):
    keys = [new_key(name) for name in ("acme", "acme", "initech")]
    config = DoorConfig(tenants={"acme": Tenant(**limits), "initech": Tenant()})
    ring, caps = KeyRing([kept for _, kept in keys]), {"acme": None, "initech": None}
    async with serving(FakeModel(name="m", latency=1.0), config=config, keys=ring, caps=caps) as stage:
        body = {"model": "auto", "messages": HELLO}

        async def ask(number):
            return await stage.client.post(
                "/v1/messages", json=body | {"max_tokens": 5}, headers={"x-api-key": keys[number][0]}
            )

        # Two keys of one tenant share what it may; another tenant does not feel it.
        *asked, other = await asyncio.gather(*(ask(number) for number in (0, 1, 0, 1, 2)))
        assert [one.status_code for one in asked] == statuses
        assert other.status_code == 200
        if code is not None:
            assert asked[-1].json()["error"]["type"] == "rate_limit_error"
            await asyncio.sleep(float(asked[-1].headers["retry-after"]))
            assert (await ask(0)).status_code == 200


async def test_an_address_that_guesses_keys_is_slowed_down():
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant()})
    async with serving("swift", config=config, keys=KeyRing([kept]), caps={"acme": None}) as stage:
        tried = [await stage.client.get("/v1/models", headers={"x-api-key": f"usk-1-{n}"}) for n in range(12)]
        assert [one.status_code for one in tried] == [401] * 10 + [429] * 2
        assert (await stage.client.get("/v1/models", headers={"x-api-key": shown})).status_code == 200
        await asyncio.sleep(float(tried[-1].headers["retry-after"]))
        assert (await stage.client.get("/v1/models", headers={"x-api-key": "usk-1-x"})).status_code == 401


async def test_only_the_listed_headers_of_a_client_go_on_to_the_provider():
    async with serving("swift") as stage:
        server, sent = stage.servers[0], []

        async def send(request, progress):
            sent.append({name.lower(): value for name, value in request.headers.items()})
            return await type(server).send(server, request, progress)

        server.send = send
        given = {"openai-beta": "b=1", "cookie": "c", "x-forwarded-for": "10.0.0.1", "x-understudy-timeout": "9"}
        for stream in (False, True):
            body = {"model": "auto", "messages": HELLO, "stream": stream}
            response = await stage.client.post("/v1/chat/completions", json=body, headers=given)
            assert response.status_code == 200
        # What is translated goes to a provider of another protocol, which these headers are not for.
        await stage.client.post(
            "/v1/messages", json={"model": "auto", "messages": HELLO, "max_tokens": 5}, headers=given
        )
        assert [one.get("openai-beta") for one in sent] == ["b=1", "b=1", None]
        assert not {"cookie", "x-forwarded-for", "x-understudy-timeout"} & set().union(*sent)


async def test_a_request_waits_in_the_class_of_its_tenant_or_its_key_or_in_a_lower_one():
    model = FakeModel(name="m", latency=1.0, output_tokens=1.0)
    keys = {name: new_key("acme") for name in ("first", "second")} | {"batch": new_key("acme", priority="low")}
    config = DoorConfig(tenants={"acme": Tenant(priority="normal")})
    ring = KeyRing([kept for _, kept in keys.values()])
    ended: list[str] = []
    async with serving(model, config=config, keys=ring, caps={"acme": "1"}, limits={"max_concurrency": 1}) as stage:

        async def ask(name: str, key: str, **headers: str) -> int:
            body = {"model": "auto", "messages": HELLO}
            headers = {"authorization": f"Bearer {keys[key][0]}"} | headers
            answered = await stage.post("/v1/chat/completions", body, **headers)
            ended.append(name)
            return answered.status_code

        asked = [("under way", "first", {}), ("low", "first", {"x_understudy_priority": "low"})]
        asked += [("of the batch", "batch", {}), ("normal", "second", {})]
        tasks = []
        for name, key, headers in asked:
            tasks.append(asyncio.create_task(ask(name, key, **headers)))
            await asyncio.sleep(0.1)
        assert [await task for task in tasks] == [200] * 4
        assert ended == ["under way", "normal", "low", "of the batch"]
        assert await ask("too high", "batch", x_understudy_priority="normal") == 403
        assert await ask("no class", "first", x_understudy_priority="urgent") == 400


LIMITED = FakeModel(name="m", latency=1.0, output_tokens=50.0)


async def spend(stage: Any, shown: str, **fields: Any) -> httpx.Response:
    body = {"model": "auto", "messages": HELLO, "max_tokens": 985} | fields
    return await stage.post("/v1/chat/completions", body, authorization=f"Bearer {shown}")


async def test_a_tenant_reserves_no_more_tokens_than_its_limit_and_has_back_what_it_did_not_use():
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(token_limit=10_000)})
    async with serving(LIMITED, config=config, keys=KeyRing([kept]), caps={"acme": "5"}) as stage:
        # Each reserves 985 tokens and 15 for what it says.
        answers = await asyncio.gather(*(spend(stage, shown, stream=number % 2 == 0) for number in range(100)))
        assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 90}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert (refused.headers["retry-after"], refused.json()["error"]["type"]) == ("61", "rate_limit_error")
        told = await stage.post(
            "/v1/messages", {"model": "auto", "messages": HELLO, "max_tokens": 10_000}, x_api_key=shown
        )
        assert (told.status_code, told.json()["error"]["type"]) == (429, "rate_limit_error")
        assert (told.headers["x-should-retry"], "retry-after" in told.headers) == ("false", False)
        # They have used 50 tokens each, and some for what was said.
        assert stage.door.tokens._window("acme").used == pytest.approx(10 * 60, rel=0.2)
        again = await asyncio.gather(*(spend(stage, shown) for _ in range(12)))
        assert Counter(answer.status_code for answer in again) == {200: 9, 429: 3}


async def test_a_model_that_is_asked_as_a_service_counts_against_the_limit_of_tokens():
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(token_limit=2_500)})
    async with serving(LIMITED, config=config, keys=KeyRing([kept]), caps={"acme": "5"}) as stage:
        body = {"messages": HELLO, "max_tokens": 985}
        asking = [stage.post("/v1/services/chat", body, x_api_key=shown) for _ in range(5)]
        answers = await asyncio.gather(*asking)
        assert Counter(answer.status_code for answer in answers) == {200: 2, 429: 3}
        used = sum(answer.json()["output"]["usage"]["total_tokens"] for answer in answers if answer.status_code == 200)
        assert stage.door.tokens._window("acme").used == used > 0


async def test_neither_another_key_nor_a_reload_nor_a_restart_renews_a_limit_of_tokens(tmp_path):
    keys = [new_key("acme") for _ in range(2)]
    ring = KeyRing([kept for _, kept in keys])
    config = DoorConfig(tenants={"acme": Tenant(token_limit=2_500)})
    for life in range(2):
        async with serving(LIMITED, config=config, keys=ring, caps={"acme": "5"}) as stage:
            stage.door.clock = lambda life=life: 1_000.0 + 10.0 * life + asyncio.get_running_loop().time()
            log = TokenLog(tmp_path / "tokens")
            stage.door.remember_tokens(log)
            asking = [asyncio.create_task(spend(stage, shown)) for shown, _ in keys * 2]
            await asyncio.sleep(0.5)
            go_by(stage.door, stage.door.names, config, ring)
            if life == 0:
                for one in asking:  # Killed, with two calls under way.
                    one.cancel()
                await asyncio.wait(asking)
                log.close()
                with (tmp_path / "tokens").open("a") as torn:
                    torn.write('["acme", 10')
                continue
            statuses = Counter([(await one).status_code for one in asking])
            assert statuses == {429: 4}
            await asyncio.sleep(51.0)
            assert (await spend(stage, keys[1][0])).status_code == 200
            log.close()


async def test_a_request_that_cost_nothing_gives_its_tokens_back():
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(token_limit=10_000)})
    faults = (FakeOutage(status=503),)
    async with serving(LIMITED, config=config, keys=KeyRing([kept]), caps={"acme": "5"}, faults=faults) as stage:
        assert (await spend(stage, shown)).status_code == 503
        assert stage.door.tokens._window("acme").used == 0
        task = asyncio.create_task(spend(stage, shown, model="none"))
        assert (await task).status_code == 404
        assert stage.door.tokens._window("acme").used == 0
