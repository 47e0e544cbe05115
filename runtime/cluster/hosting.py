"""Keyed actors: where each has its journal, and that at most one activation writes it.

The home of a key is one of the declared homes. It activates the actor if it is needed: it claims the journal, which
raises the epoch in it, and starts the actor with it. Nothing is written under an earlier epoch any more. A journal that
was moved and adopted has an epoch that no home before reaches; so a home asks the others first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from weakref import WeakValueDictionary

from runtime.actor import Actor
from runtime.cluster.codec import WireRef, error_to_wire, text_of
from runtime.cluster.contact import ASK_EVERY, SILENCE, Contact
from runtime.cluster.errors import CannotActivate, NodeLost
from runtime.cluster.frames import Activated, ActivateFrame, AnswerFrame, Elsewhere, FailureFrame, HoldsFrame
from runtime.cluster.homes import ADOPTION, Keyed, home_of, journal_name
from runtime.cluster.keyed import KeyedActor
from runtime.cluster.placing import factory_named
from runtime.cluster.port import NodeLife, Unreachable
from runtime.cluster.remote import RemoteActor
from runtime.errors import RuntimeFault
from runtime.events import Event
from runtime.messages import Message
from runtime.persistence import JournalError, has_threads
from runtime.supervision import Directive, Restart, RestartIntensity, Supervision

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from runtime.cell.cell import Cell
    from runtime.cluster.codec import MessageCodec
    from runtime.cluster.journals import Journals
    from runtime.cluster.peer import Peer
    from runtime.cluster.port import Port
    from runtime.engine import Engine
    from runtime.persistence import Journal
    from runtime.ref import ActorRef
    from runtime.system import ActorSystem

T = TypeVar("T")

ACTIVATION = 10.0
"""Seconds in which a home must have activated an actor."""
OTHERS = 1.0
"""Seconds for which a home waits for what the others say of a journal."""
MAX_ACTIVE = 200
"""Activations of a node; beyond them, one that has nothing to do is ended: each has its journal open."""
MAX_REMEMBERED = 100_000
"""Keys whose epochs and places are remembered."""


class ContactLost(Event, frozen=True):
    """The node has not heard from its cluster for a second; its keyed actors are ended, and their journals closed."""

    node: str


class ContactRegained(Event, frozen=True):
    """The node hears from its cluster again, and activates keyed actors."""

    node: str


class ActivateActor(Message, frozen=True):
    """The request that a keyed actor be activated; only errors name it."""


def restart_or_leave(error: Exception) -> Directive:
    """Leave an actor whose journal cannot be used until it is needed again; its asker is told why then."""
    return Directive.STOP if isinstance(error, JournalError) else Directive.RESTART


class KeyedSupervisor(Actor[Any]):
    """The parent of the keyed actors of a node: one that crashes again and again waits, and does not end the others."""

    supervision = Supervision(decide=restart_or_leave, intensity=RestartIntensity(max_restarts=1_000_000))


class HomeJournal:
    """What a keyed actor is given to open its journal with: under the epoch that its home has claimed."""

    def __init__(self, journals: Journals, name: str, epoch: int) -> None:
        self._journals = journals
        self._name = name
        self._epoch = epoch

    def __call__(self, **options: Any) -> Journal:
        """Open it; the options are those of `SqliteJournal`. Raises `JournalError`."""
        journal = self._journals.open(self._name, **options)
        try:
            journal.keep_to(self._epoch)
        except BaseException:
            journal.close()
            raise
        return journal

    def __repr__(self) -> str:
        return f"<HomeJournal {self._name!r} of epoch {self._epoch}>"


class Host(Protocol):
    """What is needed of the node."""

    life: NodeLife
    system: ActorSystem
    engine: Engine
    codec: MessageCodec
    port: Port
    is_closed: bool

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]: ...
    def peer(self, life: NodeLife) -> Peer: ...
    def export(self, ref: ActorRef[Any]) -> WireRef: ...


class Hosting:
    """The keyed actors of one node, and what it knows of those elsewhere."""

    def __init__(self, node: Host, homes: Sequence[str] = (), journals: Journals | None = None) -> None:
        self.homes = homes
        """The names of all homes, in any order; the same for every node."""
        self._node = node
        self._journals = journals
        self._path = f"keyed actors of {node.life.name}"
        self.contact = Contact(node.engine.time())
        self._had_contact = True
        self._refs: WeakValueDictionary[Keyed, ActorRef[Any]] = WeakValueDictionary()
        self._active: OrderedDict[Keyed, Activated] = OrderedDict()
        self._starting: dict[Keyed, asyncio.Task[Activated | Elsewhere]] = {}
        self._epochs: OrderedDict[Keyed, int] = OrderedDict()
        """The highest epochs that were seen."""
        self._places: OrderedDict[Keyed, str] = OrderedDict()
        """Where journals are that were adopted."""
        self.numbers: OrderedDict[int, Keyed] = OrderedDict()
        """The numbers under which other nodes know activations of this one, also of those that have ended."""
        self._parent: Cell | None = None
        if journals is not None:
            parent = node.system.spawn(KeyedSupervisor, name="keyed", restart=Restart.PERMANENT)
            self._parent = cast("Cell", parent.recipient.home)
            node.create_task(self._keep_contact())

    # As others see it.

    def ref(self, name: Keyed) -> ActorRef[Any]:
        """Return the ref of a keyed actor."""
        ref = self._refs.get(name)
        if ref is None:
            ref = self._refs[name] = KeyedActor(self, name).ref
        return ref

    @property
    def engine(self) -> Engine:
        """The engine of the node."""
        return self._node.engine

    @property
    def is_closed(self) -> bool:
        """Whether the node has left the cluster."""
        return self._node.is_closed

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that ends with the node."""
        return self._node.create_task(coroutine)

    async def activated(self, name: Keyed) -> ActorRef[Any]:
        """Return the activation of a keyed actor, wherever its journal is. Raises `CannotActivate`."""
        home = home_of(name, self.homes)
        at = self._places.get(name, home)
        told = await self._ask_node(at, name)
        if isinstance(told, Elsewhere) and not told.at:
            epochs = await self._epochs_elsewhere(name, but=at)
            best = max(epochs, key=epochs.__getitem__, default="")
            if best and epochs[best] >= max(ADOPTION, self._epochs.get(name, 0)):
                told = Elsewhere(told.why, best)
        if isinstance(told, Elsewhere) and told.at and told.at != at:
            at = told.at
            told = await self._ask_node(at, name)
        if isinstance(told, Elsewhere):
            self._places.pop(name, None)
            raise CannotActivate(name.path, told.why)
        remember(self._places, name, at)
        self._see(name, told.epoch)
        return told.ref

    async def _ask_node(self, node: str, name: Keyed) -> Activated | Elsewhere:
        if node == self._node.life.name:
            return await self.activate(name, self._epochs.get(name, 0))
        epoch = self._epochs.get(name, 0)
        try:
            async with asyncio.timeout(ACTIVATION):
                life = await self._node.port.resolve(node)
                return await self._request(
                    life, lambda number: ActivateFrame(number, name, epoch), Activated | Elsewhere, ACTIVATION
                )
        except NodeLost as error:
            return Elsewhere(f"its home {node!r}, which has its journal, is gone: {error.why}")
        except (RuntimeFault, Unreachable, TimeoutError) as error:
            return Elsewhere(f"its home {node!r}, which has its journal, does not answer: {error}")

    async def _epochs_elsewhere(self, name: Keyed, *, but: str) -> dict[str, int]:
        """Ask all other homes for the epoch of the journal that they have; those that do not answer are left out."""

        async def ask(home: str) -> int:
            if home == self._node.life.name:
                return await self.holds(name)
            life = await self._node.port.resolve(home)
            return await self._request(life, lambda number: HoldsFrame(number, name), int, OTHERS)

        async def ask_in_time(home: str) -> int:
            try:
                async with asyncio.timeout(OTHERS):
                    return await ask(home)
            except (RuntimeFault, Unreachable, TimeoutError, JournalError):
                return 0

        homes = [home for home in self.homes if home != but]
        found = await asyncio.gather(*(ask_in_time(home) for home in homes))
        return {home: epoch for home, epoch in zip(homes, found, strict=True) if epoch}

    async def _request(self, life: NodeLife, frame: Callable[[int], Any], of: Any, timeout: float) -> Any:  # noqa: ASYNC109
        actor = RemoteActor(self._node.peer(life), WireRef(life.name, life.epoch, 0, self._path))
        now = self.engine.time()
        answer, _ = await actor.exchange(ActivateActor(), frame, of, now=now, deadline=now + timeout)
        return answer

    def _see(self, name: Keyed, epoch: int) -> None:
        remember(self._epochs, name, max(epoch, self._epochs.get(name, 0)))

    # As a home.

    async def holds(self, name: Keyed) -> int:
        """Return the epoch of the journal that this node has of a keyed actor; 0 if it has none."""
        active, journals = self._active.get(name), self._journals
        if active is not None:
            return active.epoch
        return (await self._at_disk(lambda: journals.epoch(journal_name(name))) or 0) if journals is not None else 0

    async def activate(self, name: Keyed, seen: int) -> Activated | Elsewhere:
        """Return the activation on this node, or make one; `seen` is the epoch that its asker has seen."""
        active = self._active.get(name)
        if active is not None and active.epoch >= seen and not active.ref.recipient.closed:
            return active
        starting = self._starting.get(name)
        if starting is None:
            starting = self._starting[name] = self.create_task(self._start(name, seen))
            starting.add_done_callback(lambda _: self._starting.pop(name, None))
        return await asyncio.shield(starting)

    async def _start(self, name: Keyed, seen: int) -> Activated | Elsewhere:
        own, journals = self._node.life.name, self._journals
        if journals is None or self._parent is None:
            return Elsewhere(f"its home {own!r} was given no folder for journals when it joined")
        await asyncio.sleep(self.contact.until_takeover(self.engine.time()))
        elsewhere = await self._epochs_elsewhere(name, but=own)
        ended = self._active.pop(name, None)
        if ended is not None:
            await ended.ref.terminated()  # It has its journal open until then.
        try:
            here = await self.holds(name)
            if (better := better_place(own, here, elsewhere)) is not None:
                return better
            if seen > here:
                return Elsewhere(
                    f"its journal at {own!r} is of epoch {here}, and {seen} was seen: there is a later one elsewhere"
                )
            if own != home_of(name, self.homes) and not here:
                return Elsewhere(f"{own!r} is not its home, and has no journal of it")
            epoch = await self._at_disk(lambda: claim(journals, journal_name(name)))
        except JournalError as error:
            return Elsewhere(str(error))
        if not self.contact.holds(self.engine.time()):
            return Elsewhere(f"its home {own!r} has not heard from the cluster for {SILENCE:g} s")
        journal = HomeJournal(journals, journal_name(name), epoch)
        shown = journal_name(name).removesuffix(".journal")
        try:
            factory = partial(factory_named(name.factory), name.key, journal)
            ref = self._parent.spawn(factory, name=f"{shown}-{epoch}")
        except Exception as error:  # noqa: BLE001 - of the factory, or of what names it: its asker is told.
            return Elsewhere(
                f"{name.factory} makes no actor of it at {own!r}: {type(error).__name__}: {text_of(error)}"
            )
        active = self._active[name] = Activated(ref, epoch)
        remember(self.numbers, self._node.export(ref).number, name)
        self._make_room()
        return active

    def _make_room(self) -> None:
        """If there are too many activations, forget those that have ended, or end the oldest that has nothing to do."""
        if len(self._active) <= MAX_ACTIVE:
            return
        for name, active in tuple(self._active.items()):
            if cast("Cell", active.ref.recipient).exit is not None:
                del self._active[name]
        if len(self._active) > MAX_ACTIVE:
            idle = next((one for one in self._active.values() if one.ref.recipient.load == 0), None)
            if idle is not None:
                idle.ref.stop()

    async def successor(self, number: int) -> Activated | Elsewhere | None:
        """Return the activation after one that has ended, by the number of that; None if it is of no keyed actor."""
        name = self.numbers.get(number)
        return None if name is None else await self.activate(name, 0)

    async def _at_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work) if has_threads(asyncio.get_running_loop()) else work()

    # What other nodes ask.

    def answer_activate(self, peer: Peer, frame: ActivateFrame) -> None:
        """Activate a keyed actor for another node."""
        self.create_task(self._answer(peer, frame.number, self.activate(frame.name, frame.epoch)))

    def answer_holds(self, peer: Peer, frame: HoldsFrame) -> None:
        """Tell another node which epoch the journal here has."""
        self.create_task(self._answer(peer, frame.number, self.holds(frame.name)))

    async def _answer(self, peer: Peer, number: int, answer: Coroutine[Any, Any, Any]) -> None:
        told: AnswerFrame | FailureFrame
        try:
            told = AnswerFrame(number, self._node.codec.encode(await answer))
        except Exception as error:  # noqa: BLE001 - of the factory, or of what names it: it is the asker's.
            told = FailureFrame(number, error_to_wire(error))
        peer.post(told, alone=True)

    # Whether it may be one.

    async def _keep_contact(self) -> None:
        """Ask the cluster for the life of this node, again and again; without an answer, end what only one may do."""
        node, time = self._node, self.engine.time
        asking: asyncio.Task[NodeLife] | None = None
        asked = time()
        while not self.contact.is_over:
            if asking is None:
                asked = time()
                asking = self.create_task(cast("Any", node.port.resolve(node.life.name)))
            patience = self.contact.heard + SILENCE - time() if self.contact.holds(time()) else ASK_EVERY
            await asyncio.wait((asking,), timeout=patience)
            if asking.done():
                if not asking.cancelled() and asking.exception() is None:
                    is_current = asking.result() == node.life
                    self.contact = self.contact.after_answer(asked=asked, is_current=is_current)
                asking = None
            self._note_contact()
            if asking is None:
                await asyncio.sleep(min(ASK_EVERY, max(0.0, self.contact.heard + SILENCE - time())) or ASK_EVERY)
                self._note_contact()

    def _note_contact(self) -> None:
        holds = self.contact.holds(self.engine.time())
        if holds == self._had_contact:
            return
        self._had_contact = holds
        name = self._node.life.name
        self.engine.events.publish(ContactRegained(name) if holds else ContactLost(name))
        if not holds:
            for active in self._active.values():
                active.ref.kill()


def better_place(own: str, here: int, elsewhere: dict[str, int]) -> Elsewhere | None:
    """Return where an actor is rather activated, by the epochs of its journals here and elsewhere; None for here.

    >>> better_place("north", 3, {"south": ADOPTION}), better_place("north", 3, {})
    (Elsewhere(why="its journal was adopted by 'south'", at='south'), None)
    """
    best = max(elsewhere, key=elsewhere.__getitem__, default="")
    if best and elsewhere[best] > max(here, ADOPTION - 1):
        return Elsewhere(f"its journal was adopted by {best!r}", best)
    if best and not here:  # Which was its home before the homes were changed.
        return Elsewhere(f"its journal is at {best!r}", best)
    if best and max(here, elsewhere[best]) < ADOPTION:
        return Elsewhere(f"{own!r} and {best!r} both have a journal of it: adopt the right one")
    return None


def claim(journals: Journals, name: str) -> int:
    """Claim a journal for a new activation, and return its epoch. Raises `JournalError`."""
    journal = journals.open(name)
    try:
        return journal.claim()
    finally:
        journal.close()


def remember(known: OrderedDict[Any, Any], name: Any, value: Any) -> None:
    """Keep a value under a name, and drop the oldest if there are too many."""
    known[name] = value
    known.move_to_end(name)
    if len(known) > MAX_REMEMBERED:
        known.popitem(last=False)
