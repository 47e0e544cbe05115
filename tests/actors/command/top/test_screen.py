"""What is drawn of a system, and what keys do: each part has what the page has, and texts from outside stay texts."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import pytest
from rich.cells import cell_len

from actors import Throttled, Transient
from actors.command.top.screen import PARTS, Screen
from actors.dashboard import GetUpdate, Update, View
from actors.dashboard.messages import AskedAct
from runtime import Actor, DeadLetter, DeadReason, Message
from tests.actors.dashboard.hostile import HOSTILE
from tests.actors.dashboard.stage import looked_at

DECODER = msgspec.json.Decoder(Update)


class Told(Message, frozen=True):
    text: str


class Seen:
    """A screen of a stage, brought up to date by hand."""

    def __init__(self, stage, *, width: int = 150, height: int = 45) -> None:
        self.stage, self.width, self.height = stage, width, height
        self.screen = Screen()
        self.screen.connected("shop")
        self.draw()

    def draw(self) -> str:
        clock = asyncio.get_running_loop().time()
        lines = self.screen.draw(self.width, self.height, clock=clock)
        assert len(lines) == self.height
        for line in lines:
            assert cell_len(line.plain) <= self.width
            assert line.plain.isprintable(), repr(line.plain)
        return "\n".join(line.plain for line in lines)

    async def look(self) -> str:
        await asyncio.sleep(0.3)
        ask = lambda: GetUpdate(seen=self.screen.view.seen, look=self.screen.look())  # noqa: E731 - as it is by then.
        while encoded := await self.stage.watcher.ask(ask(), timeout=5.0):
            self.screen.take(DECODER.decode(encoded), clock=asyncio.get_running_loop().time())
        return self.draw()

    def press(self, *keys: str) -> AskedAct | None:
        """Press keys; a key of one character is typed."""
        act = None
        for key in keys:
            act = self.screen.press(key, key if len(key) == 1 else None)
            self.draw()
        return act

    def go_to(self, kind: str, name: str) -> None:
        """Move the cursor to the line of a subject."""
        self.press("home")
        for _ in range(200):
            subject = self.screen.subject
            if subject is not None and subject.kind == kind and subject.key.endswith(name):
                return
            self.press("down")
        pytest.fail(f"there is no line of {kind} {name}")


async def test_the_overview_has_providers_accounts_and_what_is_wrong():
    async with looked_at("alder", "birch") as stage:
        seen = Seen(stage)
        await stage.request(account="batch")
        text = await seen.look()
        for words in ("✓ all well", "alder", "● closed", "batch", "$0.02", "of $1.00", "1 in all"):
            assert words in text
        stage.failing["alder"] = Transient("the [bold]oven[/] is cold")
        stage.failing["birch"] = Transient("it may have run", charged="held")
        for _ in range(8):
            await stage.request(account="batch", timeout=2.0)
        text = await seen.look()
        for words in ("✕ open", "breaker open", "the [bold]oven[/] is cold", "may have been paid", "held calls", "▓"):
            assert words in text, words


async def test_requests_say_what_they_wait_for_and_one_is_followed_attempt_by_attempt():
    async with looked_at("alder") as stage:
        seen = Seen(stage)
        stage.failing["alder"] = Throttled("slow down", retry_after=5.0)
        waiting = asyncio.create_task(stage.request(request_id="r-1", account="batch"))
        seen.press("2")
        text = await seen.look()
        for words in ("1 under way", "r-1", "batch", "alder: ", "more"):
            assert words in text, words
        seen.press("enter")
        assert seen.screen.look().request == "r-1"
        text = await seen.look()
        assert "the way of r-1" in text
        assert "Throttled: slow down" in text
        stage.failing.clear()
        await waiting
        text = await seen.look()
        assert "answered by alder" in text
        seen.press("escape")
        assert "the way of" not in seen.draw()


class Silent(Actor):
    pass


class Parent(Actor):
    def started(self) -> None:
        for number in range(1_000):
            self.context.spawn(Silent, name=f"child-{number}")


async def test_of_many_actors_those_in_sight_are_asked_for():
    async with looked_at("alder") as stage:
        stage.system.spawn(Parent, name="crowd")
        seen = Seen(stage)
        seen.press("3")
        text = await seen.look()
        assert "▸ crowd" in text
        assert "1,000 below" in text
        seen.go_to("actor", "crowd")
        seen.press("enter")
        assert "child-0" in await seen.look()
        seen.press("end")
        assert "…" in seen.draw()
        text = await seen.look()
        assert "child-999" in text
        assert seen.screen.look().most == 200
        seen.press("home")
        await seen.look()
        seen.go_to("actor", "crowd")
        await seen.look()
        seen.press("enter")
        assert "child-0" not in await seen.look()


async def test_events_are_filtered_and_dead_letters_have_their_reason():
    async with looked_at("alder", "birch") as stage:
        seen = Seen(stage)
        stage.failing["alder"] = Transient("no")
        for _ in range(20):
            await stage.request(timeout=2.0)
        stage.system.events.publish(DeadLetter(stage.supervisor, Told("a secret"), DeadReason.EXPIRED))
        seen.press("4")
        text = await seen.look()
        for words in ("breaker", "alder", "Told", "expired"):
            assert words in text
        assert "a secret" not in text
        seen.press("/", *"nothing like it")
        assert "Nothing that matches" in seen.draw()
        seen.press("escape")
        seen.press("/", *"ALDX", "backspace", "enter")
        assert seen.screen.filter == "ALD"
        assert "breaker open" in seen.draw()


@pytest.mark.parametrize(
    ("kind", "name", "keys", "act"),
    [
        ("provider", "alder", ("i", "y"), {"kind": "isolate"}),
        ("provider", "alder", ("r", "y"), {"kind": "release"}),
        ("provider", "alder", ("i", "n"), None),
        ("provider", "alder", ("i", "escape"), None),
        ("provider", "alder", ("p", "y"), None),
        ("account", "batch", ("p", "y"), {"kind": "pause"}),
        ("account", "batch", ("u", "y"), {"kind": "resume"}),
        ("held", "", ("y", "enter"), {"kind": "resolve", "charged": "yes"}),
        ("held", "", ("y", "0", ".", "0", "1", "enter"), {"kind": "resolve", "charged": "yes", "cost": "0.01"}),
        ("held", "", ("y", "escape"), None),
        ("held", "", ("n", "y"), {"kind": "resolve", "charged": "no"}),
        ("held", "", ("n", "enter"), None),
    ],
)
async def test_an_act_is_asked_about_first(kind, name, keys, act):
    async with looked_at("alder", may_act=True) as stage:
        stage.failing["alder"] = Transient("perhaps", charged="held")
        await stage.request(account="batch")
        seen = Seen(stage)
        await seen.look()
        seen.go_to(kind, name)
        subject = seen.screen.subject
        assert seen.press(*keys[:-1]) is None
        asked = seen.press(keys[-1])
        assert asked == (None if act is None else AskedAct(subject=subject.key, **act))
        assert seen.screen.question is None
        assert seen.screen.typed is None


async def test_without_the_right_no_key_acts_and_it_is_said_why():
    async with looked_at("alder") as stage:
        seen = Seen(stage)
        text = await seen.look()
        assert "isolate" not in text
        assert seen.press("i") is None
        assert "acts are switched off there" in seen.draw()
        assert seen.press("y") is None


async def test_an_actor_is_stopped_or_restarted_by_its_path():
    async with looked_at("alder", may_act=True) as stage:
        seen = Seen(stage)
        seen.press("3")
        await seen.look()
        seen.go_to("actor", "ledger")
        assert seen.press("t", "y") == AskedAct(kind="restart", subject="shop/ledger")
        assert seen.press("x", "y") == AskedAct(kind="stop", subject="shop/ledger")


async def test_the_cursor_stays_at_what_it_was_at():
    async with looked_at("alder", "birch") as stage:
        seen = Seen(stage)
        await seen.look()
        seen.go_to("provider", "birch")
        seen.press("up", "down")
        stage.failing = {"alder": Transient("no"), "birch": Transient("no")}
        for _ in range(20):
            await stage.request(timeout=2.0)
        await seen.look()
        assert seen.screen.subject.key.endswith("birch")


async def test_keys_go_from_part_to_part_and_leave():
    async with looked_at("alder") as stage:
        seen = Seen(stage)
        for part in (*PARTS[1:], PARTS[0]):
            seen.press("tab")
            assert seen.screen.part == part
        seen.press("left")
        assert seen.screen.part == PARTS[-1]
        seen.press("1")
        assert seen.screen.part == "overview"
        seen.press("q")
        assert seen.screen.is_over


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20, 2), (40, 8), (80, 24), (300, 90)])
async def test_every_part_fits_every_terminal(width, height):
    async with looked_at("alder", may_act=True) as stage:
        seen = Seen(stage, width=width, height=height)
        for part in "1234":
            seen.press(part)
            await seen.look()
            seen.press("end", "home", "pagedown", "pageup", "down", "i", "escape")


async def test_before_anything_is_known_and_after_it_is_lost_it_says_so():
    async with looked_at("alder") as stage:
        seen = Seen(stage)
        await seen.look()
        seen.screen.disconnected("not connected: the program has closed the connection")
        assert "what is shown is old" in seen.draw()
        assert seen.press("i") is None
        assert "there is no connection" in seen.draw()
    fresh = Screen()
    assert "connecting" in fresh.draw(80, 10, clock=0.0)[0].plain


async def test_hostile_texts_are_text_in_every_part():
    names = tuple(f"{text[:40]}{number}".replace("\x00", "") for number, text in enumerate(HOSTILE[:1]))
    async with looked_at(*names, accounts={"=cap <b>": "5"}) as stage:
        seen = Seen(stage, height=200)
        for number, text in enumerate(HOSTILE):
            stage.failing = dict.fromkeys(names, Transient(text, charged="held" if number % 3 == 0 else "no"))
            readable = text[:50].encode("utf-8", "replace").decode().replace("\x00", "")
            await stage.request(account="=cap <b>", request_id=f"{readable} {number}")
            stage.system.events.publish(DeadLetter(stage.supervisor, Told(text), DeadReason.EXPIRED))
            await asyncio.sleep(1.0)
        told = ""
        for part in "1234":
            seen.press(part)
            told += await seen.look()
        assert "[bold red]markup[/]" in told
        assert r"\x1b[31mred" in told
        seen.screen.connected("\x1b]0;owned\x07[red]x")
        assert r"\x1b]0;owned\x07[red]x" in seen.draw()


def test_rows_that_a_foreign_program_sends_are_drawn_as_text_too():
    screen = Screen()
    row = {"supervisor": "s", "name": "\x1b[2J[red]", "breaker": "\x1b[31m", "last_error": "\x07", "left": ["\n"]}
    step = {"kind": "call", "at": -1e9, "latency": 1e9, "provider": "\x1b[2J"}
    trace = {"request_id": "r\x1b", "service": "\t", "began": 0.0, "steps": [step], "error": "\x1b"}
    sent = {
        "seen": {},
        "now": 1.0,
        "at": 2.0,
        "providers": {"put": {"k\x1b": row}},
        "traces": {"put": {"t": trace}},
        "trace": trace,
        "actors": {"total": 1, "first": 5, "rows": []},
        "charts": {"put": {"": {"until": 1.0, "step": 5.0, "calls": [-1], "failed": [], "cost": [0]}}},
    }
    screen.connected("x")
    screen.take(msgspec.convert(sent, Update), clock=1.0)
    screen.looked_at = "r\x1b"
    for part in "1234":
        screen.press(part, part)
        for line in screen.draw(120, 30, clock=2.0):
            assert line.plain.isprintable()
    assert isinstance(screen.view, View)


def calls_of_a_draw(accounts: int) -> int:
    """Return the Python calls that one drawing takes, with so many accounts and providers."""
    row = {
        "breaker": "closed",
        "supervisor": "s",
        "last_error": "Transient",
        "last_words": "cold",
        "last_error_at": 0.0,
    }
    sent = {
        "seen": {},
        "now": 1.0,
        "at": 1.0,
        "providers": {"put": {f"p{number}": {**row, "name": f"p{number}"} for number in range(accounts)}},
        "accounts": {"put": {f"a{number}": {"ledger": "l", "name": f"a{number}"} for number in range(accounts)}},
    }
    screen = Screen()
    screen.connected("x")
    screen.take(msgspec.convert(sent, Update), clock=1.0)
    made = 0

    def count(_frame, event, _arg):
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        screen.draw(120, 40, clock=1.0)
    finally:
        sys.setprofile(None)
    return made


def test_a_drawing_costs_little_for_a_line_that_is_out_of_sight():
    assert (calls_of_a_draw(600) - calls_of_a_draw(100)) / 500 < 30
