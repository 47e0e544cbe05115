"""The page in a real browser: what a person sees, clicks and types, and what no text from outside can do."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from actors import GetStatus, Transient
from actors.dashboard.server import Dashboard
from tests.actors.dashboard.browser import CHROMIUM, browsing
from tests.actors.dashboard.stage import looked_at
from tests.actors.dashboard.test_view import Parent

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.real_time,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>cold</b>"
TOKEN = "100 % of #" + "x" * 9
ROWS = "document.querySelectorAll('#providers .card').length"
NODES = "document.getElementsByTagName('*').length"


def card(name):
    return f"[...document.querySelectorAll('#providers .card')].find((one) => one.ariaLabel === {name!r})"


def button(name, within="document"):
    return f"[...({within}).querySelectorAll('button')].find((one) => one.textContent.includes({name!r}))"


@asynccontextmanager
async def watched(*names, may_act=True, **options):
    async with looked_at(*names, may_act=may_act, **options) as stage:
        stage.latency = 0.02
        async with Dashboard(stage.system, may_act=may_act, token=TOKEN) as page, browsing() as browser:
            await browser.open(page.url)
            await browser.until(ROWS)
            yield stage, page, browser
            assert browser.errors == []


async def test_a_breaker_opens_and_closes_live_and_no_text_is_markup():
    async with watched("alder", "birch", "<i>cedar</i>") as (stage, _, browser):
        assert await browser.eval("location.hash") == ""
        stage.failing["alder"] = Transient(HOSTILE)

        def only(provider):
            return provider.name == "alder"

        await asyncio.gather(*(stage.request(account="batch", where=only, timeout=1.0) for _ in range(12)))
        await browser.until(f"({card('alder')}).textContent.includes('✕ open')", within=10)
        assert HOSTILE in await browser.eval(f"({card('alder')}).textContent")
        assert await browser.eval("document.querySelectorAll('main img, main b.x, main i.x').length") == 0
        assert await browser.eval("document.title") == "understudy"
        assert "problem" in await browser.eval("document.getElementById('state').textContent")
        await browser.picture("trouble-light")
        stage.failing.clear()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and "● closed" not in await browser.eval(f"({card('alder')}).textContent"):
            await stage.request(where=only)
            await browser.pause(0.3)
        assert "● closed" in await browser.eval(f"({card('alder')}).textContent")


async def test_a_provider_is_isolated_by_click_and_released_by_keys():
    async with watched("alder", "birch") as (stage, _, browser):
        await browser.click(button("Isolate", card("alder")))
        await browser.until("document.getElementById('confirm').open")
        await browser.click("document.getElementById('confirm-yes')")
        await browser.until(f"({card('alder')}).textContent.includes('isolated')")
        statuses = await stage.supervisor.ask(GetStatus(), timeout=5.0)
        assert {one.provider.name: one.breaker for one in statuses}["alder"] == "isolated"
        await browser.eval("document.getElementById('tab-overview').focus()")
        for _ in range(30):
            await browser.press("Tab")
            if await browser.eval("document.activeElement.textContent") == "Release":
                break
        await browser.press("Enter")
        await browser.until("document.getElementById('confirm').open")
        await browser.press("Enter")
        await browser.until(f"({card('alder')}).textContent.includes('● closed')")


async def test_without_a_token_and_under_another_name_nothing_is_shown():
    async with watched("alder") as (_, page, browser):
        for path, method in (("stream", "GET"), ("act", "POST"), ("look", "POST")):
            headers = "headers: {'x-understudy': '1', 'content-type': 'application/json'}"
            told = f"fetch('{path}', {{method: '{method}', credentials: 'omit', {headers}}}).then((one) => one.status)"
            assert await browser.eval(told) == 401
        assert await browser.eval("document.cookie") == ""
        browser.errors.clear()  # The browser logs each 401.
        reader, writer = await asyncio.open_connection("127.0.0.1", page._port)
        writer.write(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b" 421 " in (await reader.read())[:20]
        writer.close()


async def test_ten_thousand_actors_scroll_with_few_nodes():
    async with watched("alder") as (stage, _, browser):
        stage.system.spawn(lambda: Parent(10_000), name="crowd")
        await browser.eval("document.getElementById('tab-actors').focus()")
        await browser.press("Enter")
        await browser.until("[...document.querySelectorAll('.line')].some((one) => one.textContent.includes('crowd'))")
        await browser.press("Tab", times=2)  # Beyond the tab of the events.
        assert await browser.eval("document.activeElement.id") == "tree"
        for _ in range(10):
            if "crowd" in (await browser.eval("document.querySelector('.line.active')?.textContent") or ""):
                break
            await browser.press("ArrowDown")
        await browser.press("ArrowRight")
        await browser.until("document.getElementById('actor-count').textContent.startsWith('10,00')")
        await browser.until("document.querySelectorAll('.line').length > 20")
        await browser.picture("actors-light")
        for place in range(0, 280_000, 28_000):
            await browser.eval(f"document.getElementById('tree').scrollTop = {place}")
            line = f".textContent.includes('child-{place // 28}')"
            await browser.until(f"[...document.querySelectorAll('.line')].some((one) => one{line})")
            assert await browser.eval(NODES) <= 2_000
        spent = sorted(await browser.eval("window.understudySpent"))
        assert spent[int(len(spent) * 0.95)] < 100


async def test_the_page_is_shown_in_the_dark_and_on_a_phone():
    async with watched("alder", "birch", "cedar") as (stage, _, browser):
        stage.failing["birch"] = Transient("overloaded", charged="held")
        for name in ("alder", "birch", "alder", "cedar"):
            await stage.request(account="batch", where=lambda provider, name=name: provider.name == name, timeout=2.0)
        stage.latency = 8.0
        requests = [asyncio.create_task(stage.request(account="batch", timeout=60.0)) for _ in range(25)]
        await browser.until("document.querySelector('#figures').textContent.includes('25under way')")
        await browser.size(1280, 900, dark=True)
        await browser.picture("overview-dark")
        await browser.size(390, 844)
        await browser.picture("overview-phone")
        assert await browser.eval("document.documentElement.scrollWidth <= innerWidth")
        await browser.size(1280, 900)
        await browser.click("document.getElementById('tab-requests')")
        await browser.until("document.querySelectorAll('#requests .link').length")
        await browser.click("document.querySelector('#requests .link')")
        await browser.until("document.querySelector('#timeline')?.textContent.length > 20")
        await browser.click("document.querySelector('#ended .link')")
        await browser.until("document.querySelectorAll('#timeline tbody tr').length")
        await browser.picture("requests-light")
        await browser.click("document.getElementById('tab-events')")
        await browser.until("document.querySelectorAll('#event-rows tr').length")
        await browser.picture("events-light")
        for one in requests:
            one.cancel()
        await asyncio.wait(requests)
