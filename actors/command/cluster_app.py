"""The commands of `understudy cluster`: what operators do about the machines of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

cluster_app = typer.Typer(help="What to do if a machine of a cluster is gone.")


@cluster_app.callback()
def _cluster() -> None: ...  # pyright: ignore[reportUnusedFunction]  # With one command alone, its name would not be needed.


@cluster_app.command("adopt", short_help="Let a keyed actor go on at another home, from its journal.")
def adopt(
    journals: Annotated[
        list[str], typer.Argument(metavar="JOURNAL", help="Files that were moved into the folder of their new home.")
    ],
) -> int:
    """Raise the epoch of journals that were moved to another home, so that their actors go on there.

    Do so if the machine of their home is gone for good. Move each file together with those of the same name that end
    with -wal, into the folder of journals of another home. If the machine comes back, what it still has of them is not
    written any more. No program may be using the files; one that is, is named.

    Exit codes: 0 they are adopted, 2 bad input, such as a file that is no journal.
    """
    from actors.command.adopting import adopt_files

    return adopt_files(journals)
