"""What one start of a ledger costs: `python -m benchmarks.durable.start JOURNAL` prints seconds of CPU, and bytes."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from time import process_time

from actors.ledger.book import Book
from actors.ledger.config import LedgerConfig
from actors.ledger.opening import recover


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def main(path: str) -> None:
    before, begin = resident(), process_time()
    journal, _ = await recover(path, Book(), config=LedgerConfig(safety="process"), at=0.0)
    print(process_time() - begin, resident() - before)
    journal.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
