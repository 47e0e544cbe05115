"""What an actor sees of its cell, as `self.context`; `Cell` adds how it spawns children."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from runtime.cell.far_target import FarTarget
from runtime.cell.inbox import accept, dead_letter_instead, is_waiting
from runtime.cell.life import end
from runtime.cell.phases import AWAITING_RESTART, ENDED, RENEW, RETIRE
from runtime.cell.stash import stash, unstash_all
from runtime.cell.state import CellState
from runtime.cell.watching import unwatch, watch
from runtime.deadline import current_deadline
from runtime.errors import ActorStopped
from runtime.log import logger_of
from runtime.supervision import Restart
from runtime.timers import Timers

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from runtime.event_stream import EventStream
    from runtime.log import Logger
    from runtime.ref import ActorRef
    from runtime.registry import ActorRegistry


class ActorContext(CellState):
    """The members of `Context`, which tells what each does."""

    __slots__ = ()

    @property
    def parent(self) -> ActorRef[Any] | None:
        return None if self.owner is None or self.owner.owner is None else self.owner.ref

    @property
    def children(self) -> Mapping[str, ActorRef[Any]]:
        children = self.supervised.by_name if self.supervised is not None else {}
        return MappingProxyType({name: child.ref for name, child in children.items()})

    @property
    def timers(self) -> Timers:
        if self.phase in (AWAITING_RESTART, ENDED):
            raise ActorStopped(self.path, "a timer")
        if self.own_timers is None:
            engine = self.engine
            deliver = partial(engine.deliver_and_drain, partial(accept, self, otherwise=dead_letter_instead))
            self.own_timers = Timers(engine.loop, engine.context, deliver, partial(is_waiting, self))
        return self.own_timers

    @property
    def deadline(self) -> float | None:
        # A sync handler is called without setting the context variable, which would cost it dearly.
        return self.until if self.until is not None else current_deadline.get()

    @property
    def random(self) -> random.Random:
        return self.engine.random

    @property
    def events(self) -> EventStream:
        return self.engine.events

    @property
    def kept(self) -> dict[str, Any]:
        if self.kept_values is None:
            self.kept_values = {}
        return self.kept_values

    @property
    def registry(self) -> ActorRegistry:
        return self.engine.registry

    @property
    def log(self) -> Logger:
        return logger_of(self.path, self.actor, self.engine.logger)

    @property
    def logs(self) -> bool:
        return self.engine.logs

    def now(self) -> float:
        return self.engine.time()

    def watch(self, ref: ActorRef[Any]) -> None:
        target = ref.recipient.home
        if isinstance(target, FarTarget):
            target.observe()
        elif not isinstance(target, CellState):
            raise TypeError(f"{ref!r} cannot be watched")
        watch(self, target)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        target = ref.recipient.home
        if isinstance(target, CellState | FarTarget):
            unwatch(self, target)

    stash = stash
    unstash_all = unstash_all

    def stop(self) -> None:
        end(self, RENEW if self.restart is Restart.PERMANENT else RETIRE)
