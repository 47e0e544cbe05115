"""A headless Chromium, driven over a pipe by its DevTools protocol: https://chromedevtools.github.io/devtools-protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = (
    "--headless=new --remote-debugging-pipe --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
    "--disable-extensions --disable-background-networking --disable-component-update --hide-scrollbars about:blank"
)
PICTURES = Path(os.environ.get("UNDERSTUDY_PICTURES", tempfile.gettempdir())) / "understudy-pictures"


class Browser:
    """One page of a browser."""

    def __init__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.session: str | None = None
        self.errors: list[str] = []
        """What the console shows as errors, and exceptions that no script caught."""

    async def read(self) -> None:
        while True:
            message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if "id" in message:
                waiting = self._answers.pop(message["id"])
                if not waiting.done():
                    waiting.set_result(message)
                continue
            params = message.get("params", {})
            match message["method"]:
                case "Runtime.exceptionThrown":
                    self.errors.append(str(params["exceptionDetails"].get("exception", params)))
                case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                    self.errors.append(str(params["args"]))
                case "Log.entryAdded" if params["entry"]["level"] == "error":
                    self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
                case _:
                    pass

    async def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | (
            {"sessionId": self.session} if self.session else {}
        )
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        answer = await asyncio.wait_for(waiting, 60)
        assert "error" not in answer, answer
        return answer["result"]

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def eval(self, script: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str, *, within: float = 30.0) -> Any:
        """Wait until a script gives something that counts as true."""
        for _ in range(int(within / 0.1)):
            if found := await self.eval(script):
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(
            f"not within {within} s: {script}; the page has {await self.eval('document.body.innerText')}"
        )

    async def pause(self, seconds: float) -> None:
        """Let the page, and what it shows, go on by itself."""
        await asyncio.sleep(seconds)

    async def press(self, key: str, *, times: int = 1) -> None:
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "ArrowRight": 39, "ArrowUp": 38, "ArrowLeft": 37, "Escape": 27}
        text = {"text": "\r"} if key == "Enter" else {}
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                told = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
                await self.call("Input.dispatchKeyEvent", type=kind, **told, **(text if kind == "keyDown" else {}))

    async def click(self, script: str) -> None:
        """Click in the middle of the element that a script finds."""
        await self.until(f"Boolean({script})")
        await self.eval(f"({script}).scrollIntoView({{block: 'center'}})")
        box = f"({script}).getBoundingClientRect()"
        spot = await self.eval(f"((r) => [r.x + r.width / 2, r.y + r.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1], button="left", clickCount=1)

    async def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1.0) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=theme)

    async def picture(self, name: str, folder: Path = PICTURES) -> Path:
        await asyncio.sleep(0.4)
        found = await self.call("Page.captureScreenshot", format="png")
        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - of a test.
        path = folder / f"{name}.png"
        path.write_bytes(base64.b64decode(found["data"]))
        return path


@asynccontextmanager
async def browsing() -> AsyncGenerator[Browser]:
    """Start a browser with one page, and end it with the block."""
    assert CHROMIUM is not None
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        commands, send = os.pipe()
        receive, answers = os.pipe()
        command = f"exec {CHROMIUM} --user-data-dir={folder} {FLAGS} 3<&{commands} 4>&{answers}"
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            command,
            pass_fds=(commands, answers),
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        reader = asyncio.StreamReader(limit=2**26)
        incoming, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(receive, "rb")
        )
        outgoing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(send, "wb"))
        browser = Browser(reader, outgoing)
        reading = asyncio.create_task(browser.read())
        try:
            targets = (await browser.call("Target.getTargets"))["targetInfos"]
            target = next(one["targetId"] for one in targets if one["type"] == "page")
            browser.session = (await browser.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                await browser.call(f"{domain}.enable")
            await browser.size(1280, 900)
            yield browser
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            outgoing.close()
            incoming.close()
            process.terminate()
            await process.wait()
