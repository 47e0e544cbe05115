"""What an operator does to a running system: each act is done once, published, logged, and kept in the journal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from actors.dashboard.messages import Act, ActDone
from actors.dashboard.view import shown
from actors.errors.families import CallFailed, Permanent
from actors.ledger.beside import KeepValue, ListValues
from actors.ledger.entries import MoneySettled
from actors.ledger.ledger import LEDGERS
from actors.ledger.messages import ListStatements, Resolve, SetCap
from actors.money import ZERO, Micros
from actors.supervisor.messages import Isolate, Release
from runtime import RuntimeFault

if TYPE_CHECKING:
    from runtime import ActorRef, ActorSystem, Context

ACTS = "operators' acts"
"""The scope of a journal in which acts are kept."""
PAUSED = "paused accounts"
"""The scope of a journal in which the caps of paused accounts are kept."""
TIMEOUT = 10.0


class Paused(msgspec.Struct, frozen=True):
    """An account that is paused, with its cap before that; or one that is not paused any more."""

    account: str
    cap: Micros | None = None
    is_over: bool = False


PAUSED_DECODER = msgspec.msgpack.Decoder(Paused)


class Acts:
    """Does what operators ask for. `providers`, `held` and `accounts` say what the keys of rows stand for."""

    def __init__(self, system: ActorSystem, context: Context) -> None:
        self._system, self._context = system, context
        self.providers: dict[str, tuple[ActorRef[Any], str]] = {}
        self.held: dict[str, tuple[ActorRef[Any], int]] = {}
        self.accounts: dict[str, tuple[ActorRef[Any], str]] = {}
        self._paused: dict[str, Paused] = context.kept.setdefault("paused", {})
        self._learned: set[ActorRef[Any]] = set()
        self._count = 0

    def paused_cap(self, key: str) -> str | None:
        """Return the cap that a paused account had, "" for none; None for an account that is not paused."""
        paused = self._paused.get(key)
        return None if paused is None else "" if paused.cap is None else str(paused.cap)

    async def learn_paused(self, ledgers: tuple[ActorRef[Any], ...]) -> None:
        """Read from their journals which accounts were paused before the program began."""
        for ref in ledgers:
            if ref in self._learned:
                continue
            self._learned.add(ref)
            try:
                kept = await ref.ask(ListValues(PAUSED), timeout=TIMEOUT)
            except Permanent:
                continue  # It has no journal.
            except (CallFailed, RuntimeFault):
                self._learned.discard(ref)  # Another time.
                continue
            for head in kept.heads.values():
                paused = PAUSED_DECODER.decode(head)
                if not paused.is_over:
                    self._paused.setdefault(f"{ref.path} {paused.account}", paused)

    async def do(self, act: Act, *, allowed: bool) -> str:
        """Do it, and record what came of it, also if it failed or was given up."""
        outcome = "given up"
        try:
            if not allowed:
                raise Permanent("acts are switched off here; start the page with acts allowed")
            outcome = await self._do(act)
        except (CallFailed, RuntimeFault) as error:
            outcome = f"refused: {error}"
            raise
        finally:
            await self._record(act, outcome, keeps=allowed)
        return outcome

    async def _do(self, act: Act) -> str:
        match act.kind:
            case "isolate" | "release":
                ref, name = _found(self.providers, act.subject, "provider")
                message = Isolate(provider=name) if act.kind == "isolate" else Release(provider=name)
                await ref.ask(message, timeout=TIMEOUT)
                return "isolated" if act.kind == "isolate" else "released"
            case "resolve":
                ref, number = _found(self.held, act.subject, "held call")
                entry = await ref.ask(Resolve(number, act.charged or "no", act.cost), timeout=TIMEOUT)
                return f"charged {entry.cost}" if isinstance(entry, MoneySettled) else "not charged"
            case "pause":
                return await self._pause(act.subject)
            case "resume":
                return await self._resume(act.subject)
            case "stop" | "restart":
                return self._end_actor(act.subject, restart=act.kind == "restart")

    async def _pause(self, key: str) -> str:
        """Let nothing draw on an account: its cap is 0 until it is resumed."""
        ref, account = _found(self.accounts, key, "account")
        if key in self._paused:
            raise Permanent(f"account {account!r} is paused already")
        listed = await ref.ask(ListStatements(names=(account,)), timeout=TIMEOUT)
        if not listed.accounts or listed.accounts[0].is_closed:
            raise Permanent(f"there is no open account {account!r}")
        paused = Paused(account, listed.accounts[0].cap)
        self._keep_paused(ref, key, paused)
        await ref.ask(SetCap(account, ZERO), timeout=TIMEOUT)
        return f"paused; its cap was {'none' if paused.cap is None else paused.cap}"

    async def _resume(self, key: str) -> str:
        ref, account = _found(self.accounts, key, "account")
        paused = self._paused.get(key)
        if paused is None:
            raise Permanent(f"account {account!r} is not paused")
        listed = await ref.ask(ListStatements(names=(account,)), timeout=TIMEOUT)
        if not listed.accounts or listed.accounts[0].cap != ZERO:
            self._keep_paused(ref, key, Paused(account, is_over=True))
            return "its cap was changed meanwhile, and stays as it is"
        await ref.ask(SetCap(account, paused.cap), timeout=TIMEOUT)
        self._keep_paused(ref, key, Paused(account, is_over=True))
        return f"resumed with the cap it had: {'none' if paused.cap is None else paused.cap}"

    def _keep_paused(self, ref: ActorRef[Any], key: str, paused: Paused) -> None:
        if paused.is_over:
            self._paused.pop(key, None)
        else:
            self._paused[key] = paused
        ref.tell(KeepValue(scope=PAUSED, key=paused.account, head=msgspec.msgpack.encode(paused), for_ever=True))

    def _end_actor(self, path: str, *, restart: bool) -> str:
        ref = self._system.find(path)
        if ref is None or ref == self._context.ref:
            raise Permanent(f"there is no actor {shown(path)!r} that could be {'restarted' if restart else 'stopped'}")
        if restart:
            self._system.restart(path)
            return "restarted"
        ref.stop()
        return "stopped"

    async def _record(self, act: Act, outcome: str, *, keeps: bool) -> None:
        """Publish, log and keep what was done, by whom and when.

        What no viewer may do is not kept: a journal is not for viewers to fill.
        """
        self._count += 1
        done = ActDone(
            who=shown(act.who), kind=act.kind, subject=shown(act.subject), outcome=shown(outcome), at=time.time()
        )
        self._context.log.bind(who=done.who, act=done.kind, subject=done.subject).warning(
            "{}: {} {}: {}", done.who, done.kind, done.subject, done.outcome
        )
        self._context.events.publish(done)
        row = KeepValue(
            scope=ACTS,
            key=f"{done.at:.6f} {self._count}",
            head=msgspec.json.encode(done),
            for_ever=True,
        )
        for ref in self._context.registry.find(LEDGERS) if keeps else ():
            ref.tell(row)


def _found(known: dict[str, tuple[ActorRef[Any], Any]], key: str, what: str) -> tuple[ActorRef[Any], Any]:
    found = known.get(key)
    if found is None:
        raise Permanent(f"there is no {what} {shown(key)!r}; what is shown may have changed meanwhile")
    return found
