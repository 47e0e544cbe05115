"""The command `understudy`. It needs the extra `cli`; without it, it says what to install."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__: list[str] = []

EXTRA = ("aiohttp", "rich", "typer")
"""The packages that the extra `cli` brings."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (by default the process's own) and exit with its code."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        needs = ", ".join(missing)
        sys.stderr.write(f'error: the command understudy needs {needs}; write: pip install "understudy[cli]"\n')
        sys.exit(2)
    try:
        # Imported here, so that a demo provider, which does not need it, starts without it.
        from actors.command.app import run_app  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run_app(sys.argv[1:] if arguments is None else arguments))
