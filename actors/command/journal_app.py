"""The commands of `understudy` that show a journal, and mend it: their options and their help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

JournalPath = Annotated[str, typer.Argument(metavar="JOURNAL", help="The file; a program may be writing it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to `understudy`."""
    for name, (command, short, example) in COMMANDS.items():
        app.command(name, short_help=short, epilog=f"Example: {example}")(command)


def held(journal: JournalPath, *, as_json: AsJson = False) -> int:
    """Show each call of a journal that may have been paid: since when, its provider, and what it cost at most.

    It counts against its budgets until it is known what became of it. The journal is only read, also while a run
    writes it.

    Exit codes: 0 it was read, 2 bad input.
    """
    from actors.command.held import show_held

    return show_held(journal, as_json=as_json)


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


COMMANDS: dict[str, tuple[Callable[..., int], str, str]] = {
    "held": (held, "Show the calls that may have been paid.", "understudy held results.jsonl.journal"),
    "export": (
        export,
        "Write the entries of a journal as CSV or JSON lines.",
        "understudy export results.jsonl.journal --format csv > entries.csv",
    ),
}
