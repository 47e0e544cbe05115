"""Which of several ready tasks and actors runs first: drawn from a seed, and recorded as deviations from FIFO order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from runtime.engine import MESSAGES_PER_ACTIVATION

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

ChoiceKind: TypeAlias = Literal["task", "actor", "messages", "mailbox", "later"]

SHORTCUTS = 0.75
"""The share of the requests that keep the shortcut past the mailbox, if they may take it; the others go through it."""


class Deviation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One choice of a run that differs from the order of production.

    It is found again by `subject`, the name of a task, actor or system, and `turn`: how many turns of that kind the
    subject has had by then. So it stays the same choice if others are left out. `step` is the step of the run at which
    it was made, which is for readers alone.
    """

    kind: ChoiceKind
    subject: str
    turn: int
    before: str = ""
    """The task or actor that was overtaken."""
    messages: int = 0
    step: int = msgspec.field(default=0)

    @property
    def key(self) -> tuple[str, str, int]:
        """What the choice is found by."""
        return self.kind, self.subject, self.turn

    def __str__(self) -> str:
        match self.kind:
            case "task" | "actor":
                done = f"{self.kind} {self.subject} went before {self.kind} {self.before}"
            case "messages":
                done = f"actor {self.subject} paused after {self.messages} of its messages"
            case "mailbox":
                done = f"request {self.turn} of system {self.subject} went through the mailbox"
            case "later":
                done = f"the actors of system {self.subject} waited for the next turn of the loop"
        return f"{done} at step {self.step}"


def read_deviations(text: str) -> tuple[Deviation, ...]:
    """Return the deviations that a command names as JSON; "none" is the order of production.

    Raises ValueError for any other text.

    >>> [str(one) for one in read_deviations('[{"kind":"task","subject":"b","turn":2,"before":"a","step":7}]')]
    ['task b went before task a at step 7']
    """
    if text == "none":
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[Deviation, ...])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ValueError(f'expected deviations as a report prints them, or "none": {error}') from error


def write_deviations(deviations: Sequence[Deviation]) -> str:
    """Return the text that `read_deviations` reads."""
    return msgspec.json.encode(deviations).decode() if deviations else "none"


class SeededSchedule:
    """Draws each choice. Plain callbacks are never moved, and tasks that have not begun keep their order."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def arrange(self, steps: list[Any], unstarted: set[Any]) -> list[Any]:
        """Return the steps of tasks that are ready at once, in the order in which they run."""
        order = steps.copy()
        self.rng.shuffle(order)
        return begin_in_order(order, unstarted)

    def choose(self, ready: Sequence[Any]) -> tuple[int, int]:
        """Return the index of the actor that runs next, and how many messages it may handle in this turn."""
        return self.rng.randrange(len(ready)), self.rng.choice((1, 2, MESSAGES_PER_ACTIVATION))

    def takes_shortcut(self, system: str) -> bool:
        """Tell whether a request that may pass by the mailbox does so."""
        return self.rng.random() < SHORTCUTS

    def drains_now(self, system: str) -> bool:
        """Tell whether actors run at once, and not in the next turn of the loop."""
        return self.rng.random() < SHORTCUTS


class FifoSchedule:
    """Makes each choice as production does."""

    def arrange(self, steps: list[Any], unstarted: set[Any]) -> list[Any]:
        """Return the steps as they are."""
        return steps

    def choose(self, ready: Sequence[Any]) -> tuple[int, int]:
        """Return the first of the ready actors."""
        return 0, MESSAGES_PER_ACTIVATION

    def takes_shortcut(self, system: str) -> bool:
        """Return True."""
        return True

    def drains_now(self, system: str) -> bool:
        """Return True."""
        return True


class RecordedSchedule:
    """Makes choices and records those that differ from production: of `inner`, or of `script` if that is given."""

    def __init__(self, inner: SeededSchedule | FifoSchedule, script: Sequence[Deviation] = ()) -> None:
        self.made: list[Deviation] = []
        """The deviations of the run so far, in their order."""
        self.overtaken: dict[tuple[str, str, int], Sequence[str]] = {}
        """All tasks that a moved one has overtaken, in their order, by the key of the deviation."""
        self.step = 0
        """The steps that the loop has taken."""
        self._inner = inner
        self._script = {one.key: one for one in script}
        self._rank = {one.key: place for place, one in enumerate(script)}
        self._turns: Counter[tuple[str, str]] = Counter()
        self._steps: Counter[float] = Counter()
        self._labels: dict[float, str] = {}
        self._named: Counter[str] = Counter()

    def stepped(self, number: float) -> None:
        """Count a step of the task with this number."""
        self.step += 1
        self._steps[number] += 1

    def arrange(self, steps: list[Any], unstarted: set[Any]) -> list[Any]:
        """Return the steps of ready tasks in the order in which they run."""
        labels = [self._label(one.task) for one in steps]
        turns = {label: self._steps[number_of(one.task)] for label, one in zip(labels, steps, strict=True)}
        by_label = dict(zip(labels, steps, strict=True))
        order = self._inner.arrange(steps, unstarted)
        if self._script:
            arranged = labels.copy()
            # A later move may rely on an earlier one, so they are made in the order in which they were recorded.
            moves = [self._script[key] for label in labels if (key := ("task", label, turns[label])) in self._script]
            for move in sorted(moves, key=lambda move: self._rank[move.key]):
                move_before(arranged, move.subject, move.before)
            order = begin_in_order([by_label[label] for label in arranged], unstarted)
        label_of = {id(one): label for label, one in by_label.items()}
        for subject, overtaken in moves_between(labels, [label_of[id(one)] for one in order]):
            self.overtaken["task", subject, turns[subject]] = overtaken
            self._made("task", subject, turns[subject], before=overtaken[0])
        return order

    def choose(self, ready: Sequence[Any]) -> tuple[int, int]:
        """Return the index of the actor that runs next, and how many messages it may handle in this turn."""
        paths = [one.ref.path for one in ready]
        turns = [self._turns["actor", path] for path in paths]
        index, limit = self._inner.choose(ready)
        if self._script:
            scripted = (("actor", path, turn) in self._script for path, turn in zip(paths, turns, strict=True))
            index = next((place for place, is_named in enumerate(scripted) if is_named), 0)
            one = self._script.get(("messages", paths[index], turns[index]))
            limit = one.messages if one is not None else limit
        self._turns["actor", paths[index]] += 1
        if index:
            self._made("actor", paths[index], turns[index], before=paths[0])
        if limit != MESSAGES_PER_ACTIVATION:
            self._made("messages", paths[index], turns[index], messages=limit)
        return index, limit

    def takes_shortcut(self, system: str) -> bool:
        """Tell whether a request that may pass by the mailbox does so."""
        return self._yes_or_no("mailbox", system, is_usual=self._inner.takes_shortcut(system))

    def drains_now(self, system: str) -> bool:
        """Tell whether actors run at once, and not in the next turn of the loop."""
        return self._yes_or_no("later", system, is_usual=self._inner.drains_now(system))

    def _yes_or_no(self, kind: ChoiceKind, system: str, *, is_usual: bool) -> bool:
        turn = self._turns[kind, system]
        self._turns[kind, system] += 1
        is_usual = is_usual and (kind, system, turn) not in self._script
        if not is_usual:
            self._made(kind, system, turn)
        return is_usual

    def _made(self, kind: ChoiceKind, subject: str, turn: int, *, before: str = "", messages: int = 0) -> None:
        self.made.append(
            Deviation(kind=kind, subject=subject, turn=turn, before=before, messages=messages, step=self.step)
        )

    def _label(self, task: Any) -> str:
        """Return the task's name; a second task of the same name gets a number."""
        number = number_of(task)
        label = self._labels.get(number)
        if label is None:
            name = task.get_name()
            self._named[name] += 1
            label = self._labels[number] = name if self._named[name] == 1 else f"{name} ({self._named[name]})"
        return label


Schedule: TypeAlias = SeededSchedule | FifoSchedule | RecordedSchedule


def number_of(task: Any) -> float:
    """Return the number of a task; a task of the program's own factory has none of its own, but a hash."""
    return getattr(task, "number", None) or float(hash(task))


def begin_in_order(steps: list[Any], unstarted: set[Any]) -> list[Any]:
    """Let the tasks that have not begun share their places in the order in which they were made."""
    if unstarted:
        places = [place for place, one in enumerate(steps) if one.task in unstarted]
        in_order = sorted((steps[place] for place in places), key=lambda one: hash(one.task))
        for place, one in zip(places, in_order, strict=True):
            steps[place] = one
    return steps


def moves_between(usual: Sequence[str], order: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Return the moves that turn the usual order into this one: each of one name past others, which follow it then.

    >>> moves_between(["a", "b", "c"], ["c", "a", "b"])
    [('c', ['a', 'b'])]
    """
    arranged = list(usual)
    moves: list[tuple[str, Sequence[str]]] = []
    for place, name in enumerate(order):
        if arranged[place] != name:
            moves.append((name, arranged[place : arranged.index(name)]))
            move_before(arranged, name, arranged[place])
    return moves


def move_before(names: list[str], subject: str, before: str) -> None:
    """Move a name directly before another, if it stands behind it."""
    if subject in names and before in names and names.index(subject) > names.index(before):
        names.remove(subject)
        names.insert(names.index(before), subject)
