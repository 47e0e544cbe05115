"""What outlives the program: a journal of entries with values under keys beside them, in a file or in memory.

>>> from runtime.persistence import MemoryJournal
>>> journal = MemoryJournal()
>>> number = journal.append(b"order 17 is paid")
>>> journal.put("shop", "order 17", b"paid", b"the answer", at=0.0)
>>> journal.commit()
>>> journal.find("shop", "order 17").body
b'the answer'
"""

from runtime.persistence.codec import Codec, qualified
from runtime.persistence.durable_actor import DurableActor, NotKept
from runtime.persistence.errors import JournalError, JournalFenced
from runtime.persistence.event_sourced import EventSourced, NotRecorded
from runtime.persistence.group_commit import GroupCommit, has_threads
from runtime.persistence.journal import Journal, KeptRow, Safety, SnapshotRow, key_digest
from runtime.persistence.memory import MemoryDisk, MemoryJournal
from runtime.persistence.ownership import Owner, owner_of
from runtime.persistence.packing import Cipher, Packing
from runtime.persistence.reader import ReadOnlyJournal, reading
from runtime.persistence.retention import Retention
from runtime.persistence.sqlite import SqliteJournal

__all__ = [
    "Cipher",
    "Codec",
    "DurableActor",
    "EventSourced",
    "GroupCommit",
    "Journal",
    "JournalError",
    "JournalFenced",
    "KeptRow",
    "MemoryDisk",
    "MemoryJournal",
    "NotKept",
    "NotRecorded",
    "Owner",
    "Packing",
    "ReadOnlyJournal",
    "Retention",
    "Safety",
    "SnapshotRow",
    "SqliteJournal",
    "has_threads",
    "key_digest",
    "owner_of",
    "qualified",
    "reading",
]
