"""The commands of `understudy` that show a journal, and mend it: their options and their help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

JournalPath = Annotated[str, typer.Argument(metavar="JOURNAL", help="The file; a program may be writing it.")]
OwnedJournal = Annotated[str, typer.Argument(metavar="JOURNAL", help="The file; no program may be writing it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to `understudy`."""
    for name, (command, short, example) in COMMANDS.items():
        app.command(name, short_help=short, epilog=f"Example: {example}")(command)


def status(journal: JournalPath, *, as_json: AsJson = False) -> int:
    """Show how far the runs in a journal have come, what they spent, and when they will be done at their present rate.

    The journal is only read, also while a run writes it.

    Exit codes: 0 it was read, 2 bad input.
    """
    from actors.command.status import show_status

    return show_status(journal, as_json=as_json)


def held(journal: JournalPath, *, as_json: AsJson = False) -> int:
    """Show each call of a journal that may have been paid: since when, its provider, and what it cost at most.

    It counts against its budgets until it is known what became of it. The journal is only read, also while a run
    writes it.

    Exit codes: 0 it was read, 2 bad input.
    """
    from actors.command.held import show_held

    return show_held(journal, as_json=as_json)


def explain(
    journal: JournalPath,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Its key, or the id of an item.")],
    *,
    as_json: AsJson = False,
) -> int:
    """Show the way of one request, call by call: provider, when, its wait and its time, its cost, and why it failed.

    A call outside of a batch has its money in the journal, but neither its time nor its error. The journal is only
    read, also while a run writes it. What a snapshot stands for may be gone.

    Exit codes: 0 it was read, 2 bad input, such as a request that the journal does not know.
    """
    from actors.command.explain import show_explanation

    return show_explanation(journal, request, as_json=as_json)


def export(
    journal: JournalPath,
    *,
    form: Annotated[str, typer.Option("--format", metavar="F", help="csv or jsonl.")] = "csv",
) -> int:
    """Write the entries of a journal to standard output: when, what, account, provider, dollars, tokens, and basis.

    Amounts are exact text. A row "paid" has what a call cost, less what it corrects. The journal is only read, also
    while a run writes it. Entries that a snapshot stands for may be gone.

    Exit codes: 0 it was written, 2 bad input.
    """
    from actors.command.export import export as write_export

    return write_export(journal, form=form)


def resolve(
    journal: OwnedJournal,
    reservation: Annotated[int, typer.Argument(metavar="ID", help="The number that `held` shows.")],
    *,
    paid: Annotated[
        str | None, typer.Option(metavar="USD", help='It was paid: dollars, such as "0.02".', show_default=False)
    ] = None,
    not_paid: Annotated[bool, typer.Option("--not-paid", help="It was not paid.")] = False,
) -> int:
    """Enter what you found out about a call that may have been paid, so that its money is spent, or free again.

    It changes the journal, so that no program may be writing it; a program that is, is named. To enter the same twice
    changes nothing.

    Exit codes: 0 it is entered, now or before, 2 bad input, such as a call that is not held.
    """
    from actors.command.resolve import enter

    return enter(journal, reservation, paid=paid, not_paid=not_paid)


def parked(
    journal: JournalPath,
    *,
    cancel: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Cancel this item; may be given again.", show_default="none"),
    ] = None,
    cancel_all: Annotated[bool, typer.Option("--cancel-all", help="Cancel every item that is parked.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show the items of runs that are parked until a reset: each with its key, since when, until when and why.

    An item that is cancelled ends as one that never ran, and costs nothing; --retry-failed of its run asks for it
    again. To list them, the journal is only read; to cancel one, no program may be writing it.

    Exit codes: 0 it was read, or they are cancelled, 2 bad input, such as the key of an item that is not parked.
    """
    from actors.command.parked import cancel_parked, show_parked

    if cancel or cancel_all:
        return cancel_parked(journal, cancel or [], every=cancel_all)
    return show_parked(journal, as_json=as_json)


def forget(
    journal: OwnedJournal,
    *,
    scope: Annotated[
        str | None,
        typer.Option(
            metavar="S", help='"tenant NAME", "account NAME", or "journal" for keys of neither.', show_default="journal"
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="K", help="One key of the scope, as in the results.", show_default="all of the scope"),
    ] = None,
) -> int:
    """Erase answers from a journal beyond recovery, and keep what was paid for them: no key is paid again.

    The items of a run are in the scope "account batch". It changes the journal, so that no program may be writing it.

    Exit codes: 0 nothing of them is left, 2 bad input.
    """
    from actors.command.forget import forget as erase_answers

    return erase_answers(journal, scope=scope, key=key)


COMMANDS: dict[str, tuple[Callable[..., int], str, str]] = {
    "status": (status, "Show how far a run has come.", "understudy status results.jsonl.journal"),
    "held": (held, "Show the calls that may have been paid.", "understudy held results.jsonl.journal"),
    "parked": (
        parked,
        "Show what waits for a reset, and cancel it.",
        "understudy parked results.jsonl.journal",
    ),
    "explain": (explain, "Show the way of one request.", "understudy explain results.jsonl.journal seven"),
    "export": (
        export,
        "Write the entries of a journal as CSV or JSON lines.",
        "understudy export results.jsonl.journal --format csv > entries.csv",
    ),
    "resolve": (
        resolve,
        "Enter what became of a call that may have been paid.",
        "understudy resolve results.jsonl.journal 17 --paid 0.02",
    ),
    "forget": (
        forget,
        "Erase answers, and keep what was paid for them.",
        'understudy forget results.jsonl.journal --scope "account batch"',
    ),
}
