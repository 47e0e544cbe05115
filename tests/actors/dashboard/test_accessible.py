"""The page for those that use no mouse or see little: all by keys, focus that shows, and the contrast of every text."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors import GetStatus, Retry, Transient
from actors.ledger import GetHeld, GetStatement
from tests.actors.dashboard.browser import CHROMIUM
from tests.actors.dashboard.test_browser import watched

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.real_time,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]
TABS = ("overview", "requests", "actors", "events")
# What can be used, by a name that outlives its being drawn anew.
NAMED = "(one) => one.dataset.focus || one.id || one.getAttribute('aria-label') || one.textContent"
USABLE = f"""[...document.querySelectorAll('button, input, select, a[href], [tabindex="0"]')]
    .filter((one) => one.checkVisibility({{visibilityProperty: true}}) && one.tabIndex >= 0 && !one.disabled)
    .map({NAMED})"""
FOCUSED = f"""((one) => {{
    const style = getComputedStyle(one), box = one.getBoundingClientRect();
    const top = one.closest('header, dialog') ? 0 : document.querySelector('header').getBoundingClientRect().bottom;
    return {{
        name: one === document.body ? '' : ({NAMED})(one),
        shows: style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2,
        seen: box.bottom > top && box.top < innerHeight,
    }};
}})(document.activeElement)"""
EVENTS = "[...document.querySelectorAll('#event-rows tbody tr')]"
CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")


@asynccontextmanager
async def busy_page():
    """Show a system with something in each part of its page: a breaker, held calls, waits, dead letters, a request."""
    async with watched("alder", "birch", "cedar", retry=Retry(max_retries=1_000)) as (stage, page, browser):

        def only(name):
            return lambda provider: provider.name == name

        stage.failing |= {"birch": Transient("no"), "cedar": Transient("perhaps", charged="held")}
        await asyncio.gather(*(stage.request(account="batch", where=only("birch"), timeout=1.0) for _ in range(12)))
        await stage.request(account="batch", where=only("cedar"), timeout=1.0)
        # It waits for the provider whose breaker is open.
        asking = asyncio.create_task(stage.request(where=only("birch"), request_id="r-1", timeout=900.0))
        try:
            await browser.until("document.querySelector('#held button') !== null")
            await browser.until("document.querySelector('#figures').textContent.includes('1under way')")
            yield stage, page, browser
        finally:
            asking.cancel()
            await asyncio.wait({asking})


async def walk(browser, to=None, *, most=80):
    """Press Tab until the element of a name has focus; without one, once around. Return the names on the way."""
    way = []
    for _ in range(most):
        await browser.press("Tab")
        at = await browser.eval(FOCUSED)
        if to is None and at["name"] in way:
            return way
        if at["name"]:
            assert at["shows"], at
            assert at["seen"], at
            way.append(at["name"])
        if to is not None and at["name"].startswith(to):
            return way
    raise AssertionError(f"{to} is not among {way}")


async def use(browser, name):
    await walk(browser, name)
    await browser.press("Enter")


async def confirm(browser):
    await browser.until("document.getElementById('confirm').open")
    await browser.press("Enter")
    await browser.until("!document.getElementById('confirm').open")


async def test_tab_and_enter_alone_reach_and_use_everything():
    async with busy_page() as (stage, _, browser):
        for tab in TABS:
            await use(browser, f"tab-{tab}")
            await browser.until(f"!document.getElementById('{tab}').hidden")
            await browser.pause(0.5)
            usable = set(await browser.eval(USABLE))
            assert usable - set(await walk(browser)) == set()
        await use(browser, "tab-overview")
        await use(browser, f"act isolate  {stage.supervisor.path} alder")
        await confirm(browser)
        await browser.until("document.activeElement.textContent === 'Release'")  # Focus is where it was.
        assert "isolated" in {one.breaker for one in await stage.supervisor.ask(GetStatus(), timeout=5.0)}
        await browser.press("Enter")
        await confirm(browser)
        await use(browser, "act pause  ")
        await confirm(browser)
        assert (await stage.supervisor.ask(GetStatement("batch"), timeout=5.0)).is_paused
        await browser.until("document.activeElement.textContent === 'Resume'")
        await browser.press("Enter")
        await confirm(browser)
        await use(browser, "act resolve no ")
        await confirm(browser)
        assert await stage.supervisor.ask(GetHeld(), timeout=5.0) == ()
        await browser.until("document.getElementById('held-panel').hidden")
        assert await browser.eval("document.activeElement !== document.body")  # Tab goes on from there.
        await use(browser, "tab-requests")
        await browser.until("document.querySelector('#under-way .link') !== null")
        await use(browser, "request r-1")
        await browser.until("document.querySelector('#timeline').textContent.includes('r-1')")
        assert await browser.eval("document.activeElement.id") == "timeline-title"
        await use(browser, "close-timeline")
        assert await browser.eval("document.activeElement.dataset.focus") == "request r-1"
        await use(browser, "tab-events")
        await walk(browser, "filter")
        await browser.call("Input.insertText", text="breaker open")
        await browser.until(f"{EVENTS}.every((one) => one.textContent.includes('breaker open'))")


async def test_a_line_of_the_tree_is_reached_opened_and_its_actor_restarted_by_keys():
    async with busy_page() as (stage, _, browser):
        await use(browser, "tab-actors")
        await browser.until("document.querySelectorAll('.line').length > 3")
        await walk(browser, "line-down")
        active = "document.querySelector('.line.active .name').textContent"
        while await browser.eval(active) != "supervisor-1" and not (await browser.eval(active)).startswith(
            "supervisor"
        ):
            await browser.press("Enter")
        lines = await browser.eval("document.querySelectorAll('.line').length")
        await use(browser, "line-fold")
        await browser.until(f"document.querySelectorAll('.line').length > {lines}")
        before = stage.system.rows((), first=0, most=50)
        await use(browser, "act restart  ")
        await confirm(browser)
        await browser.until("document.querySelector('.line.active').textContent.includes('1 restart')")
        assert sum(one.restarts for one in stage.system.rows((), first=0, most=50).rows) > sum(
            one.restarts for one in before.rows
        )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_every_text_has_the_contrast_that_wcag_asks_for(dark):
    async with busy_page() as (_, page, browser):
        await browser.size(1280, 900, dark=dark)
        checked = []
        for tab in TABS:
            await browser.click(f"document.getElementById('tab-{tab}')")
            if tab == "requests":
                await browser.click("document.querySelector('#ended .link')")
                await browser.until("document.querySelectorAll('#timeline tbody tr').length")
            await browser.pause(0.5)
            checked += await browser.eval(CONTRAST)
        await browser.click("document.getElementById('tab-overview')")
        await browser.click("[...document.querySelectorAll('#held button')][0]")
        await browser.until("document.getElementById('confirm').open")
        await browser.eval("document.getElementById('confirm-error').textContent = 'it was refused'")
        checked += await browser.eval(CONTRAST)
        await browser.eval("fetch('session', {method: 'DELETE', headers: {'x-understudy': '1'}})")
        await browser.open(page.address)
        await browser.until("document.getElementById('login')?.hidden === false")
        await browser.eval("document.querySelector('#login [role=alert]').textContent = 'that is not the token'")
        checked += await browser.eval(CONTRAST)
        assert len(checked) > 200
        assert [one for one in checked if one["ratio"] < one["least"]] == []
        browser.errors.clear()  # The browser logs the 401 of the closed session.
