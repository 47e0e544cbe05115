"""Appends, keeps and commits until it is killed, and says after each commit what is in it; see test_killed.py."""

from __future__ import annotations

import asyncio
import os
import sys

from runtime.persistence import GroupCommit, SqliteJournal


def line(number: int) -> bytes:
    """Return the entry of this number."""
    return b"%d " % number * (number % 50 + 1)


async def main(path: str, safety: str) -> None:
    journal = SqliteJournal(path, safety=safety)  # type: ignore[arg-type]
    for _ in journal.replay(after=journal.snapshot()):
        pass
    commits = GroupCommit(
        journal,
        refusal=lambda error: error,
        on_refused=print,
        on_abandoned=print,
        on_failure=print,
    )
    while True:
        for _ in range(7):
            number = journal.append(line(journal.number + 1))
        journal.put("shop", f"order {number}", b"%d" % number, line(number) * 20, at=1.8e9)
        if number % 91 == 0:
            journal.save(b"state after %d" % number)
        commits.schedule()
        await commits.once_written(None)
        os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
