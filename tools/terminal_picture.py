"""Draw the picture of `understudy top` in docs/observing.md: `python tools/terminal_picture.py`, in virtual time.

It runs the market of the live page's pictures, whose providers fail, throttle and answer slowly, and looks at it.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from actors import Ledger, Market, Supervisor  # noqa: E402
from actors.command.top.screen import Screen  # noqa: E402
from actors.dashboard import GetUpdate, Update, Watcher  # noqa: E402
from actors.ledger import OpenAccount  # noqa: E402
from runtime import ActorSystem  # noqa: E402
from runtime.simulation import VirtualTimeLoop  # noqa: E402
from tools.page_pictures import ACCOUNTS, SECONDS, Troubles, ask, listings_of, load  # noqa: E402

PAGE = ROOT / "docs" / "observing.md"
BLOCK = re.compile(r"(```text top\n).*?(```)", re.DOTALL)
WIDTH, HEIGHT = 132, 28


async def picture() -> str:
    """Return what is on the screen after some minutes."""
    troubles = Troubles()
    async with ActorSystem("agents", log=False, seed=3) as system:
        watcher = system.spawn(lambda: Watcher(system, may_act=True), name="watcher")
        ledger = system.spawn(Ledger, name="ledger")
        for name, (cap, parent) in ACCOUNTS.items():
            await ledger.ask(OpenAccount(name=name, cap=cap, parent=parent), timeout=5.0)
        market = Market(providers=listings_of(troubles))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger), name="supervisor")
        loading = asyncio.create_task(load(supervisor, troubles))
        await asyncio.sleep(SECONDS)
        troubles.is_down = True
        for _ in range(8):
            await ask(supervisor, "support")
        screen = Screen()
        screen.connected("agents, pid 4711")
        clock = asyncio.get_running_loop().time
        while update := await watcher.ask(GetUpdate(seen=screen.view.seen, look=screen.look()), timeout=5.0):
            screen.take(msgspec.json.decode(update, type=Update), clock=clock())
        lines = screen.draw(WIDTH, HEIGHT, clock=clock())
        loading.cancel()
        await asyncio.wait({loading})
    return "\n".join(line.plain.rstrip() for line in lines)


def main() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        drawn = runner.run(picture())
    text, count = BLOCK.subn(lambda found: f"{found[1]}{drawn}\n{found[2]}", PAGE.read_text(encoding="utf-8"))
    assert count == 1
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
