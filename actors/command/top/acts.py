"""What a key does to what is selected: each act is asked about before it is done. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.command.top.formats import dollars
from actors.dashboard.messages import AskedAct

if TYPE_CHECKING:
    from actors.command.top.lines import ScreenSubject
    from actors.dashboard.view import View

WORDS = {
    "provider": (("i", "isolate"), ("r", "release")),
    "account": (("p", "pause"), ("u", "resume")),
    "held": (("y", "was paid"), ("n", "was not")),
    "request": (("enter", "its way"),),
    "actor": (("enter", "open"), ("t", "restart"), ("x", "stop")),
}
"""The keys for what is selected, with what they do."""


class Question(msgspec.Struct, frozen=True):
    """What is asked before an act is done; one that `takes_cost` is answered with dollars, or nothing."""

    text: str
    act: AskedAct
    takes_cost: bool = False


def question_of(key: str, subject: ScreenSubject, view: View) -> Question | None:
    """Return what is asked for a key; None for one that does nothing to what is selected."""
    match subject.kind, key:
        case "provider", "i" | "r" if (provider := view.providers.get(subject.key)) is not None:
            kind = "isolate" if key == "i" else "release"
            return Question(f"{kind} {provider.name}?", AskedAct(kind=kind, subject=subject.key))
        case "account", "p" | "u" if (account := view.accounts.get(subject.key)) is not None:
            kind = "pause" if key == "p" else "resume"
            return Question(f"{kind} {account.name}?", AskedAct(kind=kind, subject=subject.key))
        case "held", "y" if (held := view.held.get(subject.key)) is not None:
            text = f"{held.provider} was paid; dollars ({dollars(held.amount)} if nothing is typed):"
            return Question(text, AskedAct(kind="resolve", subject=subject.key, charged="yes"), takes_cost=True)
        case "held", "n" if (held := view.held.get(subject.key)) is not None:
            text = f"{held.provider} was not paid for the call of {dollars(held.amount)}?"
            return Question(text, AskedAct(kind="resolve", subject=subject.key, charged="no"))
        case "actor", "t" | "x":
            kind = "restart" if key == "t" else "stop"
            return Question(f"{kind} {subject.key}?", AskedAct(kind=kind, subject=subject.key))
        case _:
            return None


def answered(question: Question, typed: str) -> AskedAct:
    """Return the act, at the cost that was typed, if one was."""
    return msgspec.structs.replace(question.act, cost=typed or None) if question.takes_cost else question.act
