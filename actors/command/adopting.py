"""`understudy cluster adopt`: let keyed actors go on at another home."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from actors.command.bad_input import BadInput
from actors.command.journal_output import refusing_journals, write_lines
from actors.masking import escaped
from runtime.cluster import TAKEOVER, JournalFolder, adopt

if TYPE_CHECKING:
    from collections.abc import Sequence


def adopt_files(paths: Sequence[str]) -> int:
    """Adopt each journal, say its epoch, and return 0; raises `BadInput` if one is refused."""
    for path in paths:
        if not Path(path).is_file():
            raise BadInput(f"{path}: there is no such file; move the journal into the folder of its new home first")
    time.sleep(TAKEOVER)  # A home that was cut off just now lets go within that time.
    for path in paths:
        with refusing_journals():
            journal = JournalFolder(Path(path).parent).open(Path(path).name)
            try:
                epoch = adopt(journal)
            finally:
                journal.close()
        write_lines([f"{escaped(path)} is adopted with epoch {epoch}"])
    return 0
