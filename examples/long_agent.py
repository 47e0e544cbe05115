"""An agent that runs for a week and ends again and again: no step is lost, none is paid twice, and an approval waits.

Its state is what its recorded events have made of it, so each life goes on where the last one ended. What it asks a
paid model it asks under a key of that state: if it ends between the answer and its event, the next life gets that
answer again, and pays nothing. In virtual time, so that the week takes a moment; `python examples/long_agent.py 7`
draws another week.
"""

import asyncio
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from actors import Ledger, Market, ProviderCall, Supervisor, provider, smart_request
from actors.ledger import GetStatement
from runtime import ActorRef, ActorSystem, Message, Request, handles
from runtime.persistence import EventSourced, MemoryDisk, MemoryJournal, qualified
from runtime.simulation import Simulation

HOUR, DAY = 3_600.0, 86_400.0
CHAPTERS = 14


class Written(msgspec.Struct, frozen=True, tag=qualified("long_agent")):
    text: str
    paid: bool


class Approved(msgspec.Struct, frozen=True, tag=qualified("long_agent")):
    by: str


class Book(msgspec.Struct, frozen=True):
    """The agent's state: half of the chapters may be written before its outline is approved."""

    chapters: tuple[str, ...] = ()
    approved_by: str | None = None
    answers_given_again: int = 0


class Continue(Message, frozen=True): ...


class Approve(Request[None], frozen=True):
    by: str


class Show(Request[Book], frozen=True): ...


class Author(EventSourced[Continue | Approve | Show, Written | Approved, Book]):
    def __init__(self, disk: MemoryDisk, supervisor: ActorRef[Any]) -> None:
        super().__init__("author", lambda: MemoryJournal(disk))
        self.supervisor = supervisor

    def initial(self) -> Book:
        return Book()

    def evolve(self, state: Book, event: Written | Approved) -> Book:
        match event:
            case Written(text, paid):
                chapters, again = (*state.chapters, text), state.answers_given_again + (not paid)
                return msgspec.structs.replace(state, chapters=chapters, answers_given_again=again)
            case Approved(by):
                return msgspec.structs.replace(state, approved_by=by)

    def recovered(self) -> None:
        self.context.timers.every(4 * HOUR, Continue())

    @handles(Continue)
    async def write(self, _: Continue) -> None:
        done = len(self.state.chapters)
        if done == CHAPTERS or (done >= CHAPTERS // 2 and self.state.approved_by is None):
            return
        result = await smart_request(
            self.supervisor,
            service="writing",
            input=f"chapter {done + 1}",
            budget="0.05",
            idempotency_key=self.call_key(),
        )
        await asyncio.sleep(HOUR)  # It reads what it was sent; if it ends here, the answer is in the receipt alone.
        await self.record(Written(result.output, paid=not result.replayed))

    @handles(Approve)
    async def approve(self, message: Approve) -> None:
        await self.record(Approved(message.by))

    @handles(Show)
    def show(self, _: Show) -> Book:
        return self.state


class Model:
    """A model that takes its time, and charges each key once."""

    def __init__(self) -> None:
        self.charged: set[str] = set()

    async def write(self, call: ProviderCall) -> str:
        self.charged.add(call.idempotency_key)
        await asyncio.sleep(5.0)
        return f"{call.input}: it was a dark night"


async def week(simulation: Simulation) -> None:
    model, disk, lives, waited = Model(), MemoryDisk(), 0, 0
    book, booked = Book(), ""
    listing = provider("writer", model.write, service="writing", price="0.02", idempotent="key")
    with tempfile.TemporaryDirectory() as directory:
        journal = Path(directory, "money.journal")
        end = asyncio.get_running_loop().time() + 7 * DAY
        while (left := end - asyncio.get_running_loop().time()) > 0:
            lives += 1
            async with ActorSystem("life", log=False) as system:
                ledger = system.spawn(lambda: Ledger(journal=journal, accounts={"run": "1.00"}))
                supervisor = system.spawn(partial(Supervisor, Market(providers=[listing]), ledger=ledger))
                author = system.spawn(partial(Author, disk, supervisor))
                book = await author.ask(Show(), timeout=1.0)
                if book.approved_by is None and len(book.chapters) == CHAPTERS // 2:
                    waited += 1
                    if waited == 3:  # Its editor is back from a holiday.
                        await author.ask(Approve(by="the editor"), timeout=1.0)
                money = await ledger.ask(GetStatement(), timeout=1.0)
                booked = f"booked {money.settled}, held {money.held}"
                await asyncio.sleep(min(left, simulation.random.uniform(2 * HOUR, 12 * HOUR)))
        print(f"{len(book.chapters)} chapters in {lives} lives, approved by {book.approved_by} after {waited} of them")
        print(f"{book.answers_given_again} answers were given again; the model charged {len(model.charged)} calls")
        print(f"{booked}; each chapter was paid once:", len(model.charged) == len(book.chapters) == CHAPTERS)


if __name__ == "__main__":
    Simulation(int(sys.argv[1]) if len(sys.argv) > 1 else 2).run(week)
