"""Three fake servers of one model in a process of their own, which tell their books when their input ends."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from actors.fake import FakeConfig, FakeModel, FakePrice, FaultPlan, fake_server
from actors.fake.faults import FakeCut, FakeErrorEvent, FakeErrorInside, FakeLostReply, FakeOutage, FakeThrottle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.fake.faults import AnyFault

PRICES = (("0.25", "2"), ("0.30", "2.50"), ("1.25", "10"))
"""Dollars for a million tokens of input and of output, of each server."""
TOKENS = 32.0
"""The tokens of an answer; each is an event of a stream."""
TROUBLES: tuple[tuple[AnyFault, ...], ...] = (
    (
        FakeOutage(since=0.5, until=1.0),
        FakeThrottle(share=0.08, retry_after=0.1, tries=2),
        FakeLostReply(share=0.01, tries=1),
        FakeCut(share=0.03, tries=1),
    ),
    (FakeOutage(share=0.1), FakeErrorInside(share=0.03, tries=1), FakeErrorEvent(share=0.03, tries=1)),
    (FakeThrottle(share=0.05, retry_after=0.1, tries=2),),
)
"""What fails at each server: drawn from the request and its try, and so the same for each client."""
BROKEN = frozenset({"lost", "cut", "error_event", "error_inside"})
"""The faults after which an answer may have been paid for that did not come, or only its beginning."""


class ServedCall(msgspec.Struct):
    """One call as a server saw it: `who` asked, what struck it, and whether it was answered whole."""

    who: str
    status: int
    faults: tuple[str, ...]
    answered: bool


class Books(msgspec.Struct):
    """What the servers charged, in micro-dollars, and every call that they saw."""

    charged: float
    calls: list[ServedCall]

    @property
    def throttled(self) -> int:
        """The calls that were answered by a 429."""
        return sum(call.status == 429 for call in self.calls)

    @property
    def broken(self) -> set[str]:
        """Who met a reply that was lost, cut, or an error with status 200."""
        return {call.who for call in self.calls if BROKEN.intersection(call.faults) and call.who.startswith("call-")}


async def serve(*, with_troubles: bool) -> None:
    """Serve until the standard input ends; the first line of the output has the URLs, the second the books."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(fake_server(config_of(number, with_troubles=with_troubles)))
            for number in range(len(PRICES))
        ]
        print(msgspec.json.encode([server.url for server in servers]).decode(), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for server in servers:
            await server.until_idle()
        calls = [
            ServedCall(line.tenant, line.status, line.faults, line.answered)
            for server in servers
            for line in server.books.lines
        ]
        charged = float(1_000_000 * sum(server.books.charged for server in servers))
        print(msgspec.json.encode(Books(charged, calls)).decode(), flush=True)


def config_of(number: int, *, with_troubles: bool) -> FakeConfig:
    paid, written = PRICES[number]
    speed: dict[str, Any] = {"latency": 0.01, "token_speed": 3_000.0} if with_troubles else {}
    model = FakeModel(name="m", price=FakePrice(input=paid, output=written), output_tokens=TOKENS, **speed)
    faults = TROUBLES[number] if with_troubles else ()
    return FakeConfig(models=(model,), plan=FaultPlan(faults=faults), seed=number)


class RunningServers:
    """The servers of one client's run; `books` are there when the block has ended."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.books = Books(0.0, [])


@contextlib.contextmanager
def running_servers(*, with_troubles: bool) -> Iterator[RunningServers]:
    """Run the servers, and read their books at the end."""
    command = [sys.executable, "-m", "benchmarks.models.server", *(["troubles"] if with_troubles else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        servers = RunningServers(msgspec.json.decode(process.stdout.readline()))
        try:
            yield servers
        finally:
            process.stdin.close()
        servers.books = msgspec.json.decode(process.stdout.readline(), type=Books)


if __name__ == "__main__":
    asyncio.run(serve(with_troubles="troubles" in sys.argv))
