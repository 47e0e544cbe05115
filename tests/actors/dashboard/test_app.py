"""The page over HTTP: who may read, who may act, from where, and that texts from outside stay texts."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from importlib.resources import files

import msgspec
import pytest

from actors import GetStatus, Transient
from actors.dashboard.app import MAX_VIEWERS, DashboardApp, page
from actors.dashboard.gate import Gate
from actors.dashboard.view import Update, View
from runtime import DeadLetter, DeadReason, Message
from tests.actors.dashboard.hostile import HOSTILE
from tests.actors.dashboard.stage import looked_at

TOKEN, HOST = "t" * 32, "127.0.0.1:1"
JSON = {"content-type": "application/json", "x-understudy": "1"}


class Answer:
    def __init__(self) -> None:
        self.status, self.headers, self.body = 0, {}, b""
        self.news = asyncio.Event()

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
        self.news.set()

    def updates(self) -> list[Update]:
        events = self.body.decode().split("\n\n")
        found = [one.removeprefix("event: update\ndata: ") for one in events if one.startswith("event: update")]
        return [msgspec.json.decode(one, type=Update) for one in found]


class Client:
    """A client of the application; like a browser, it sends its cookies to all ports of a host."""

    def __init__(self, app: DashboardApp, *, host: str = HOST, jar: dict[str, str] | None = None) -> None:
        self.app, self.host = app, host
        self.jar = {} if jar is None else jar
        self.address = "127.0.0.1"

    def scope(self, method, path, headers):
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        told = {"host": self.host, **({"cookie": cookies} if cookies else {}), **headers}
        encoded = [(name.encode(), value.encode()) for name, value in told.items()]
        return {"type": "http", "method": method, "path": path, "headers": encoded, "client": (self.address, 9)}

    async def ask(self, method, path, body=None, **headers) -> Answer:
        told = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        messages = [{"type": "http.request", "body": json.dumps(body).encode() if body is not None else b""}]
        answer = Answer()

        async def receive():
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        await self.app(self.scope(method, path, told), receive, answer.send)
        return answer

    async def post(self, path, body, **headers) -> Answer:
        return await self.ask("POST", path, body, **{"content-type": "application/json", "x-understudy": "1"} | headers)

    async def log_in(self, token=TOKEN) -> Answer:
        answer = await self.post("/session", {"token": token})
        if answer.status == 204:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.jar[name] = value
        return answer

    @asynccontextmanager
    async def stream(self, send=None, **headers):
        answer, left = Answer(), asyncio.Event()

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        task = asyncio.create_task(self.app(self.scope("GET", "/stream", headers), receive, send or answer.send))
        await asyncio.sleep(0.1)
        try:
            yield answer
        finally:
            left.set()
            await task


@asynccontextmanager
async def served(*names, **options):
    async with looked_at(*names, **options) as stage:
        client = Client(DashboardApp(stage.watcher, Gate(TOKEN, hosts=[HOST])))
        yield stage, client


async def test_without_the_token_there_is_a_page_and_no_data():
    async with served() as (_, client):
        html = await client.ask("GET", "/")
        assert (html.status, html.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"alder" not in html.body
        for method, path in (("GET", "/stream"), ("POST", "/look"), ("POST", "/act")):
            refused = await client.ask(method, path, {}, **JSON)
            assert (refused.status, b"alder" in refused.body) == (401, False)
        assert (await client.log_in("wrong" * 8)).status == 401
        assert (await client.ask("GET", "/stream", authorization="Bearer " + "x" * 32)).status == 401
        assert (await client.ask("GET", "/stream?token=" + TOKEN)).status in {401, 404}


async def test_the_token_is_exchanged_for_a_cookie_that_no_script_reads():
    async with served() as (stage, client):
        cookie = (await client.log_in()).headers["set-cookie"]
        assert "; HttpOnly; SameSite=Strict; Path=/" in cookie
        assert TOKEN not in cookie
        await stage.request()
        async with client.stream() as answer:
            assert {row.name for row in answer.updates()[0].providers.put.values()} == {"alder", "birch"}
        await client.ask("DELETE", "/session", **JSON)
        assert (await client.ask("GET", "/stream")).status == 401


async def test_two_pages_of_one_host_stay_open_side_by_side():
    async with served() as (stage, client):
        other = Client(
            DashboardApp(stage.watcher, Gate(TOKEN, hosts=["127.0.0.1:2"])), host="127.0.0.1:2", jar=client.jar
        )
        await client.log_in()
        await other.log_in()
        assert len(client.jar) == 2
        for one in (client, other):
            async with one.stream() as answer:
                assert answer.status == 200


@pytest.mark.parametrize("stated", ["ops.example", "ops.example:443", "OPS.example"])
@pytest.mark.parametrize("host", ["ops.example", "ops.example:443", HOST])
async def test_behind_a_proxy_that_ends_tls_an_operator_logs_in_and_acts(stated, host):
    async with looked_at(may_act=True) as stage:
        client = Client(DashboardApp(stage.watcher, Gate(TOKEN, hosts=[HOST, stated])), host=host)
        told = {"origin": "https://ops.example", "sec_fetch_site": "same-origin"}
        answer = await client.post("/session", {"token": TOKEN}, **told)
        assert answer.status == 204
        assert "; Secure" in answer.headers["set-cookie"]
        name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
        client.jar[name] = value
        await stage.look()
        asked = {"kind": "isolate", "subject": next(iter(stage.view.providers))}
        assert (await client.post("/act", asked, **told)).status == 200
        assert (await client.post("/act", asked, origin="https://ops.example.evil.example")).status == 403


@pytest.mark.parametrize("way", ["session", "bearer"])
async def test_guesses_of_the_token_are_braked_and_open_sessions_go_on(way):
    async with served() as (_, client):
        operator, guesser = client, Client(client.app)
        await operator.log_in()
        guesser.address = "10.0.0.9"

        async def show(client, token):
            if way == "session":
                return await client.log_in(token)
            return await client.post("/look", {"viewer": "x", "look": {}}, authorization=f"Bearer {token}")

        let_in = 204 if way == "session" else 404
        assert [(await show(guesser, "wrong" * 8)).status for _ in range(12)] == [401] * 10 + [429] * 2
        braked = await show(guesser, TOKEN)
        assert (braked.status, braked.headers["retry-after"]) == (429, "5")
        assert b"wait 5 s" in braked.body
        assert (await show(Client(client.app), TOKEN)).status == let_in
        operator.address = "10.0.0.9"
        assert (await operator.post("/look", {"viewer": "x", "look": {}})).status == 404
        await asyncio.sleep(5.0)
        assert (await show(guesser, TOKEN)).status == let_in


async def test_a_stream_that_was_opened_with_the_token_outlives_guesses_from_its_address():
    async with served() as (stage, client), client.stream(authorization=f"Bearer {TOKEN}") as answer:
        for _ in range(11):
            await client.log_in("wrong" * 8)
        await stage.request()
        await asyncio.sleep(1.0)
        assert len(answer.updates()) >= 2


async def test_a_stream_ends_with_its_session():
    async with served() as (_, client):
        await client.log_in()
        async with client.stream():
            await client.ask("DELETE", "/session", **JSON)
            await asyncio.sleep(1.0)
            assert client.app._viewers == {}


async def test_a_cookie_lasts_half_a_day():
    async with served() as (_, client):
        await client.log_in()
        await asyncio.sleep(12 * 3600)
        assert (await client.ask("GET", "/stream")).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1:2"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://127.0.0.1:2"}, 403),
        ({"origin": "ftp://127.0.0.1:1"}, 403),
        ({"origin": "127.0.0.1:1"}, 403),
        ({"origin": "https://127.0.0.1:1/"}, 403),
        ({"origin": "https://evil.example#127.0.0.1:1"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"x_understudy": None}, 403),
    ],
)
async def test_a_page_elsewhere_neither_reads_nor_acts(headers, status):
    async with served(may_act=True) as (stage, client):
        await client.log_in()
        await stage.look()
        key = next(iter(stage.view.providers))
        told = {"content_type": "application/json", "x_understudy": "1"} | headers
        refused = await client.ask("POST", "/act", {"kind": "isolate", "subject": key}, **told)
        assert refused.status == status
        assert {one.breaker for one in await stage.supervisor.ask(GetStatus(), timeout=5.0)} == {"closed"}
        if "host" in headers or "origin" in headers:
            assert (await client.ask("GET", "/", **headers)).status == status


@pytest.mark.parametrize("may_act", [True, False])
async def test_an_act_needs_the_right_to_act(may_act):
    async with served(may_act=may_act) as (stage, client):
        await stage.look()
        key = next(iter(stage.view.providers))
        assert (await client.post("/act", {"kind": "isolate", "subject": key})).status == 401
        await client.log_in()
        answer = await client.post("/act", {"kind": "isolate", "subject": key})
        assert answer.status == (200 if may_act else 409)
        for bad in ({"kind": "destroy", "subject": key}, {"kind": "isolate"}, {"kind": "resolve", "subject": key}, []):
            assert (await client.post("/act", bad)).status == 400
        await stage.look()
        done = [row for row in stage.view.events.values() if row.kind == "act"]
        assert len(done) == 1
        assert done[0].text.startswith("operator ")
        assert "at 127.0.0.1: isolate: " in done[0].text


async def test_a_viewer_says_what_it_looks_at_and_no_other_says_it_for_it():
    async with served() as (_, client):
        await client.log_in()
        other = Client(client.app)
        await other.log_in()
        async with client.stream() as answer:
            name = json.loads(answer.body.decode().split("\n\n")[0].partition("data: ")[2])
            asked = {"viewer": name, "look": {"most": 10}}
            assert (await other.post("/look", asked)).status == 404
            assert (await client.post("/look", asked)).status == 204
            assert (await client.post("/look", {"viewer": name, "look": {"most": 10_000}})).status == 400
            await asyncio.sleep(0.5)
            assert answer.updates()[-1].actors.total == 4


async def test_at_most_twenty_look_and_a_place_comes_free():
    async with served() as (_, client):
        await client.log_in()
        streams = [client.stream() for _ in range(MAX_VIEWERS)]
        for one in streams:
            await one.__aenter__()
        assert (await client.ask("GET", "/stream")).status == 503
        for one in streams:
            await one.__aexit__(None, None, None)
        async with client.stream() as answer:
            assert answer.status == 200


async def test_a_slow_viewer_gets_the_newest_state_and_no_backlog():
    async with served() as (stage, client):
        await client.log_in()
        slow = Answer()

        async def send(message):
            await slow.send(message)
            await asyncio.sleep(10.0)

        async with client.stream(send):
            for _ in range(300):
                await stage.request()
                await asyncio.sleep(0.1)
            await asyncio.sleep(20.0)
        view = View()
        for update in slow.updates():
            view.apply(update)
        assert len(slow.updates()) <= 8
        assert sum(row.calls for row in view.providers.values()) == 300


async def test_a_viewer_that_takes_nothing_is_left():
    async with served() as (_, client):
        await client.log_in()

        async def send(message):
            if message["type"] == "http.response.body":
                await asyncio.sleep(1e6)

        async with client.stream(send):
            await asyncio.sleep(40.0)
            assert client.app._viewers == {}


async def test_updates_come_at_most_four_times_a_second():
    async with served() as (stage, client):
        await client.log_in()
        stage.latency = 0.01
        async with client.stream() as answer:
            for _ in range(500):
                await stage.request()
            count = len(answer.updates())
        assert 4 <= count <= 4 * 500 * 0.01 + 4


def test_the_page_is_whole_by_itself_and_makes_no_markup_of_texts():
    html = files("actors.dashboard").joinpath("page.html").read_text(encoding="utf-8")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "//cdn",
        " style=",
        "onclick=",
    ):
        assert word not in html, word
    assert html.count("<script>") == html.count("<style>") == 1
    assert "src=" not in html
    _, policy = page()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


class Told(Message, frozen=True):
    text: str


async def test_hostile_texts_reach_the_page_as_one_short_line_of_data_in_every_view():
    assert len(HOSTILE) == 20
    names = tuple(f"{text[:40]}{number}".replace("\x00", "") for number, text in enumerate(HOSTILE[:5]))
    async with served(*names, accounts={"=cap <b>": "5"}) as (stage, client):
        await client.log_in()
        async with client.stream() as answer:
            for number, text in enumerate(HOSTILE):
                stage.failing = dict.fromkeys(names, Transient(text, charged="held" if number % 3 == 0 else "no"))
                readable = text[:50].encode("utf-8", "replace").decode().replace("\x00", "")
                await stage.request(account="=cap <b>", request_id=f"{readable} {number}")
                stage.system.events.publish(DeadLetter(stage.supervisor, Told(text), DeadReason.EXPIRED))
                await asyncio.sleep(3.0)
        view = View()
        for update in answer.updates():
            view.apply(update)
        tables = (view.providers, view.accounts, view.held, view.traces, view.events, view.dead_letters, view.alerts)
        assert all((view.providers, view.accounts, view.held, view.traces, view.events, view.dead_letters))
        for table in tables:
            for row in table.values():
                for text in texts_in(msgspec.to_builtins(row)):
                    assert len(text) <= 210
                    assert text.isprintable(), repr(text)
        # Each event of the stream is one line: no text can begin another.
        for event in answer.body.decode().strip().split("\n\n"):
            assert event.startswith(":") or len(event.split("\n")) == 2


def texts_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts_in(one)


def test_a_token_that_is_no_secret_is_refused():
    with pytest.raises(ValueError, match="at least 16 characters"):
        Gate("short")
