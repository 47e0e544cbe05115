"""Alerts reach a webhook at least once and signed, whatever its receiver does meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.events import AlertCleared, AlertRaised
from actors.market import MarketError, Webhook, parse_market
from actors.market.file import _market
from actors.webhooks import WebhookSender, sign, spawn_senders, verify
from actors.webhooks.notice import Incidents, Notice, dropped_from
from actors.webhooks.senders import ReplaceWebhooks
from runtime import ActorSystem, Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
URL = "https://alerts.example.com/T0/secret-path?token=abc123"
SOON = Backoff(initial=0.01, cap=0.02)


def raised(rule: str = "latency", subject: str = "all", cause: str | None = None) -> AlertRaised:
    return AlertRaised(rule=rule, subject=subject, value=6.0, threshold=5.0, at=1.0, cause=cause)


def cleared(rule: str = "latency", subject: str = "all") -> AlertCleared:
    return AlertCleared(rule=rule, subject=subject, value=None, lasted=60.0)


# The receiver.


class Receiver:
    """A server that answers each delivery as the next word of its script says, and 204 after the last."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.taken = Counter[str]()
        self.paths: list[str] = []
        self.changed = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.paths.append(first.split(" ")[1])
                self.seen.append((first, headers, body))
                self.changed.set()
                word = self.script.pop(0) if self.script else "204"
                if word == "hang":
                    await asyncio.Event().wait()
                if word == "close":
                    return
                if word == "204":
                    self.taken[headers["webhook-id"]] += 1
                extra = f"Location: http://127.0.0.1:{self.port}/elsewhere\r\n" if word.startswith("3") else ""
                writer.write(f"HTTP/1.1 {word} Word\r\n{extra}Content-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def until_taken(self, count: int) -> None:
        async with asyncio.timeout(20.0):
            while len(self.taken) < count:
                self.changed.clear()
                await self.changed.wait()
                await asyncio.sleep(0)


@asynccontextmanager
async def receiving(*script: str) -> AsyncIterator[Receiver]:
    receiver = Receiver(*script)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


@pytest.mark.real_time
@pytest.mark.slow
async def test_each_turn_of_an_incident_is_delivered_with_one_id_past_failures_hangs_and_redirects():
    script = ("503", "close", "hang", "302", "307", "404", "204", "500")
    async with receiving(*script) as receiver:
        webhook = Webhook(url=f"http://127.0.0.1:{receiver.port}/hook", secret=SECRET, timeout=0.3)
        async with ActorSystem("s", log=False) as system:
            system.spawn(lambda: WebhookSender(webhook, backoff=SOON))
            await asyncio.sleep(0)
            for event in (raised(cause="the prompt was: my diary"), raised(), cleared(), cleared(), raised()):
                system.events.publish(event)
            await receiver.until_taken(3)
    assert set(receiver.paths) == {"/hook"}, "no redirect is followed"
    assert set(receiver.taken.values()) == {1}
    incidents = [one.split(".") for one in receiver.taken]
    assert [turn for _, turn in incidents] == ["raised", "cleared", "raised"]
    assert incidents[0][0] == incidents[1][0] != incidents[2][0]
    assert len(receiver.seen) == len(script) + 2
    assert len({headers["webhook-id"] for _, headers, _ in receiver.seen[:7]}) == 1
    for first, headers, body in receiver.seen:
        assert first.startswith("POST ")
        assert verify(SECRET, headers, body, now=time.time())
        assert b"diary" not in body
    told = json.loads(receiver.seen[0][2])
    assert told["type"] == "alert.raised"
    assert (told["data"]["rule"], told["data"]["value"], told["data"]["threshold"]) == ("latency", 6.0, 5.0)


@pytest.mark.real_time
@pytest.mark.slow
async def test_what_is_pending_when_a_program_ends_is_tried_once_more():
    async with receiving() as receiver:
        webhook = Webhook(url=f"http://127.0.0.1:{receiver.port}/", secret=SECRET)
        async with ActorSystem("s", log=False) as system:
            system.spawn(lambda: WebhookSender(webhook, backoff=SOON))
            await asyncio.sleep(0)
            for number in range(5):
                system.events.publish(raised(subject=str(number)))
        assert len(receiver.taken) == 5


# A wire in memory, for virtual time.


class Response:
    def __init__(self, status: int) -> None:
        self.status = status

    def close(self) -> None:
        pass


class MemoryWire:
    """Answers by a function of the number of the attempt: a status, or an error."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.ids: list[str] = []
        self.times: list[float] = []
        self.is_closed = False

    async def send(self, request: Any, progress: Any) -> Any:
        self.ids.append(request.headers["webhook-id"])
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        outcome = self.answer(len(self.ids))
        if isinstance(outcome, Exception):
            raise outcome
        return Response(outcome)

    async def aclose(self) -> None:
        self.is_closed = True


async def test_the_queue_is_bounded_and_the_waits_grow_to_a_minute():
    wire = MemoryWire(lambda _: ConnectionRefusedError("refused"))
    webhook = Webhook(url=URL, secret=SECRET, max_pending=3)
    async with ActorSystem("s", log=False) as system:
        sender: list[WebhookSender] = []

        def make() -> WebhookSender:
            sender.append(WebhookSender(webhook, make_wire=lambda: wire))
            return sender[-1]

        system.spawn(make)
        await asyncio.sleep(0)
        for number in range(1_000):
            system.events.publish(raised(subject=str(number)))
        await asyncio.sleep(3600.0)
        assert [one.subject for one in sender[0].pending] == ["997", "998", "999"]
        waits = [later - earlier for earlier, later in zip(wire.times, wire.times[1:], strict=False)]
        assert 40.0 <= waits[-1] <= 61.0
        assert len(waits) < 100
        wire.answer = lambda _: 200
        await asyncio.sleep(61.0)
        assert sender[0].pending == []
    assert wire.is_closed


async def test_an_alert_is_given_up_after_its_age_and_the_next_one_goes_on():
    wire = MemoryWire(lambda count: 200 if wire.ids[count - 1] != wire.ids[0] else 400)
    webhook = Webhook(url=URL, secret=SECRET, max_age=30.0)
    async with ActorSystem("s", log=False) as system:
        system.spawn(lambda: WebhookSender(webhook, make_wire=lambda: wire))
        await asyncio.sleep(0)
        system.events.publish(raised(subject="first"))
        system.events.publish(raised(subject="second"))
        await asyncio.sleep(120.0)
    assert len(set(wire.ids)) == 2
    assert Counter(wire.ids)[wire.ids[-1]] == 1


async def test_only_the_rules_that_are_asked_for_are_told():
    wire = MemoryWire(lambda _: 200)
    async with ActorSystem("s", log=False) as system:
        system.spawn(lambda: WebhookSender(Webhook(url=URL, secret=SECRET, rules=("b",)), make_wire=lambda: wire))
        await asyncio.sleep(0)
        for event in (raised("a"), raised("b"), cleared("a"), cleared("b")):
            system.events.publish(event)
        await asyncio.sleep(1.0)
    assert [one.split(".")[1] for one in wire.ids] == ["raised", "cleared"]


async def test_other_webhooks_are_told_from_the_next_alert_on_and_what_goes_on_knows_its_incidents():
    wires: list[MemoryWire] = []

    def make_wire() -> MemoryWire:
        wires.append(MemoryWire(lambda _: 200))
        return wires[-1]

    def told() -> list[list[str]]:
        return [[one.split(".")[1] for one in wire.ids] for wire in wires]

    stays, goes = Webhook(url=URL, secret=SECRET), Webhook(url=f"{URL}/gone", secret=SECRET)
    comes = Webhook(url=f"{URL}/new", secret=SECRET)
    async with ActorSystem("s", log=False) as system:
        senders = spawn_senders(system, (stays, goes), make_wire=make_wire)
        await asyncio.sleep(0.1)
        system.events.publish(raised("a"))
        await asyncio.sleep(1.0)
        senders.tell(ReplaceWebhooks((comes, msgspec.structs.replace(stays, rules=("a", "b")))))
        await asyncio.sleep(1.0)
        assert told() == [["raised"], ["raised"], []]
        assert [wire.is_closed for wire in wires] == [False, True, False]
        for event in (cleared("a"), raised("b"), raised("c")):
            system.events.publish(event)
        await asyncio.sleep(1.0)
        assert told() == [["raised", "cleared", "raised"], ["raised"], ["raised", "raised"]]
        senders.tell(ReplaceWebhooks(()))
        await asyncio.sleep(1.0)
        assert all(wire.is_closed for wire in wires)


# Decisions.


def test_an_incident_that_is_over_is_dropped_before_one_that_is_not():
    incidents, pending = Incidents(), list[Notice]()
    for number, event in enumerate((raised("a"), raised("b"), cleared("b"), raised("c"))):
        incidents, notice = incidents.turn(event, incident=f"i{number}", at=0.0)
        assert notice is not None
        pending.append(notice)
    assert [one.id for one in dropped_from(pending)] == ["i1.raised", "i1.cleared"]
    assert [one.id for one in dropped_from([pending[0], pending[3]])] == ["i0.raised"]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"))))
def test_the_turns_of_each_subject_alternate_and_share_the_id_of_their_incident(events: list[tuple[bool, str]]):
    incidents, told = Incidents(), dict[str, list[Notice]]()
    for number, (is_raised, subject) in enumerate(events):
        event = raised(subject=subject) if is_raised else cleared(subject=subject)
        incidents, notice = incidents.turn(event, incident=str(number), at=0.0)
        if notice is not None:
            told.setdefault(subject, []).append(notice)
    for notices in told.values():
        assert [one.turn for one in notices] == ["raised", "cleared"] * (len(notices) // 2) + ["raised"] * (
            len(notices) % 2
        )
        assert len({one.id for one in notices}) == len(notices)
        assert all(one.incident == two.incident for one, two in zip(notices[::2], notices[1::2], strict=False))


def test_a_signature_is_that_of_the_specification():
    # The example of the specification's own libraries.
    body, key = b'{"test": 2432232314}', "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert sign(key, id="msg_p5jXN8AQM9LWM0D4loKWxJek", time=1614265330, body=body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "other"},
        {"webhook-timestamp": "1001"},
        {"webhook-timestamp": "1e3"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "é"},
        {"webhook-signature": ""},
    ],
)
def test_what_was_changed_or_is_old_does_not_pass(changed: dict[str, str]):
    signed = sign(SECRET, id="i", time=1000, body=b"{}")
    headers = {"webhook-id": "i", "webhook-timestamp": "1000", "webhook-signature": f"v0,x {signed}"}
    assert verify(SECRET, headers, b"{}", now=1200.0)
    assert not verify(SECRET, headers, b"{ }", now=1200.0)
    assert not verify(SECRET, headers, b"{}", now=1301.0)
    assert not verify(SECRET, headers | changed, b"{}", now=1000.0)


# The market file.

FILE = '[[providers]]\nname = "a"\nservices = ["s"]\nurl = "http://127.0.0.1:1/"\n[[alerts]]\n'


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://alerts.example.com/x", "must be https"),
        ("http://127.0.0.1.example.com/x", "must be https"),
        ("http://169.254.169.254/latest", "must be https"),
        ("ftp://a/x", "must be a URL"),
        ("file:///etc/passwd", "must be a URL"),
        ("https://", "must be a URL"),
        ("https://a:99999/", "must be a URL"),
        ("https://me:secret@a/", "no user and no password"),
        ("https://a/\\u0000", "must be a URL"),
    ],
)
def test_a_url_that_would_send_alerts_in_the_clear_or_nowhere_is_refused_at_its_place(url: str, problem: str):
    with pytest.raises(MarketError, match=problem) as caught:
        parse_market(f'{FILE}url = "{url}"\nsecret = "{SECRET}"\n')
    assert caught.value.key.startswith("alerts[0]")
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://a.example/x", "http://localhost:8080/", "http://127.0.0.9/", "http://[::1]/"])
def test_https_and_this_machine_are_taken(url: str):
    (webhook,) = parse_market(f'{FILE}url = "{url}"\nsecret = "{SECRET}"\n').alerts
    assert webhook.url == url


def test_the_url_and_the_secret_come_from_the_environment_and_are_shown_nowhere():
    text = FILE + 'url = "${HOOK}"\nsecret = "${KEY}"\n'
    market = _market(text, "market.toml", {"HOOK": URL, "KEY": SECRET})
    assert market.alerts[0].url == URL
    shown = repr(market) + repr(WebhookSender(market.alerts[0]))
    assert "secret-path" not in shown
    assert "abc123" not in shown
    assert SECRET not in shown
    with pytest.raises(MarketError, match="24 to 64 bytes in base64") as caught:
        _market(text, "market.toml", {"HOOK": URL, "KEY": "not-so-secret"})
    assert "not-so-secret" not in str(caught.value)
    with pytest.raises(MarketError, match="HOOK in alerts"):
        _market(text, "market.toml", {"KEY": SECRET})


def test_a_mistyped_key_is_told():
    with pytest.raises(MarketError, match="did you mean"):
        parse_market(f'{FILE}ulr = "https://a/"\nsecret = "{SECRET}"\n')
