"""What an operator does to a running system: each act is done once, published, logged, and kept in the journal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from actors.dashboard.messages import Act, ActDone
from actors.dashboard.view import shown
from actors.errors.families import CallFailed, Permanent
from actors.ledger.beside import KeepValue
from actors.ledger.entries import MoneySettled
from actors.ledger.ledger import LEDGERS
from actors.ledger.messages import ListStatements, PauseAccount, Resolve, ResumeAccount
from actors.supervisor.messages import Isolate, Release
from runtime import RuntimeFault

if TYPE_CHECKING:
    from runtime import ActorRef, ActorSystem, Context

ACTS = "operators' acts"
"""The scope of a journal in which acts are kept."""
TIMEOUT = 10.0


class Acts:
    """Does what operators ask for. `providers`, `held` and `accounts` say what the keys of rows stand for."""

    def __init__(self, system: ActorSystem, context: Context) -> None:
        self._system, self._context = system, context
        self.providers: dict[str, tuple[ActorRef[Any], str]] = {}
        self.held: dict[str, tuple[ActorRef[Any], int]] = {}
        self.accounts: dict[str, tuple[ActorRef[Any], str]] = {}
        self._count = 0

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
        """Let nothing draw on an account until it is resumed."""
        ref, account = await self._account(key, is_paused=False)
        statement = await ref.ask(PauseAccount(account), timeout=TIMEOUT)
        return f"paused; its cap is {'none' if statement.cap is None else statement.cap}"

    async def _resume(self, key: str) -> str:
        ref, account = await self._account(key, is_paused=True)
        statement = await ref.ask(ResumeAccount(account), timeout=TIMEOUT)
        return f"resumed; its cap is {'none' if statement.cap is None else statement.cap}"

    async def _account(self, key: str, *, is_paused: bool) -> tuple[ActorRef[Any], str]:
        """Return the ledger and the name of an open account that is, or is not, paused; raises `Permanent`."""
        ref, account = _found(self.accounts, key, "account")
        listed = await ref.ask(ListStatements(names=(account,)), timeout=TIMEOUT)
        if not listed.accounts or listed.accounts[0].is_closed:
            raise Permanent(f"there is no open account {account!r}")
        if listed.accounts[0].is_paused != is_paused:
            raise Permanent(f"account {account!r} is {'not paused' if is_paused else 'paused already'}")
        return ref, account

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
