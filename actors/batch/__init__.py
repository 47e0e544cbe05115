"""Process many items at once, each with an outcome of its own, in memory that stays flat."""

from actors.batch.batch_outcomes import BatchOutcomes
from actors.batch.concurrent import Concurrent, batch_process, concurrent
from actors.batch.kept_batch import BatchJournal
from actors.batch.outcomes import (
    Done,
    Failed,
    ItemDone,
    ItemFailed,
    ItemInterrupted,
    ItemOutcome,
    RequestOutcome,
    SourceFailed,
    Unknown,
    WrongResultCount,
)
from actors.batch.robust_batch import robust_batch
from actors.batch.summary import BatchSummary

__all__ = [
    "BatchJournal",
    "BatchOutcomes",
    "BatchSummary",
    "Concurrent",
    "Done",
    "Failed",
    "ItemDone",
    "ItemFailed",
    "ItemInterrupted",
    "ItemOutcome",
    "RequestOutcome",
    "SourceFailed",
    "Unknown",
    "WrongResultCount",
    "batch_process",
    "concurrent",
    "robust_batch",
]
