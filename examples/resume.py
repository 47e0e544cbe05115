"""A batch that is killed again and again, and goes on each time: every answer is there, and none is paid for twice.

The program starts itself to do the work, and kills that with SIGKILL in the midst of it. What the work has paid for is
in the journal of its ledger; what the provider has charged is in the provider's own books, a file here.
"""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from actors import Done, FunctionTransport, Listing, Market, Provider, ProviderCall, Supervisor, robust_batch
from actors.ledger import Ledger
from runtime import ActorSystem

ITEMS = [f"question {number}" for number in range(40)]
ANSWERED_BEFORE_KILLS = (3, 9, 1)


class Parrot:
    """A provider with books of its own. It honours idempotency keys: a call that comes again is charged once."""

    def __init__(self, folder: Path) -> None:
        self.books = folder / "charged.txt"

    async def answer(self, call: ProviderCall) -> str:
        await asyncio.sleep(0.02)
        if call.idempotency_key not in self.charged():
            with self.books.open("a") as books:
                books.write(f"{call.idempotency_key}\n")
        await asyncio.sleep(0.02)  # A kill in this moment loses an answer that is charged.
        return call.input.upper()

    def charged(self) -> list[str]:
        return self.books.read_text().split() if self.books.exists() else []


async def work(folder: Path) -> None:
    """Answer what is not answered yet, and print a line for each item."""
    listing = Listing(
        provider=Provider(name="parrot", services={"chat"}, price="0.01"),
        transport=lambda: FunctionTransport(Parrot(folder).answer, paid=True, idempotent="key"),
    )
    journal = folder / "run.journal"
    async with ActorSystem("work", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=journal))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing]), ledger=ledger))
        async with robust_batch(
            supervisor, ITEMS, service="chat", budget="0.50", max_concurrency=4, journal=journal
        ) as batch:
            async for outcome in batch:
                answer = outcome.result.output if isinstance(outcome, Done) else outcome.error
                print(f"{outcome.item}: {answer}", flush=True)
        print(f"the ledger has {batch.summary.cost} settled", flush=True)


def run(folder: Path, *, kill_after: int | None = None) -> list[str]:
    """Have another process do the work; kill it after so many answers more. Return what it has printed."""
    before, lines = len(Parrot(folder).charged()), list[str]()
    again = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(again, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - it is this program.
        for line in process.stdout or ():
            lines.append(line.strip())
            if kill_after is not None and len(lines) == before + kill_after:
                process.kill()
    return lines


def main(folder: Path) -> None:
    for count in ANSWERED_BEFORE_KILLS:
        lines = run(folder, kill_after=count)
        print(f"killed when {len(Parrot(folder).charged())} were charged, {len(lines)} of them answered")
    *answers, spent = run(folder)
    charged = Parrot(folder).charged()
    right = sum(f"{item}: {item.upper()}" in answers for item in ITEMS)
    print(f"{right} of {len(ITEMS)} answered, {len(answers) - len(set(answers))} twice")
    print(f"{len(charged)} charged by the provider, {len(charged) - len(set(charged))} twice; {spent}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(work(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
