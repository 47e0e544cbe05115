"""Process many items at once, each with an outcome of its own, in memory that stays flat."""

from actors.batch.concurrent import Concurrent, batch_process, concurrent
from actors.batch.outcomes import ItemDone, ItemFailed, ItemInterrupted, ItemOutcome, SourceFailed, WrongResultCount
from actors.batch.robust_batch import Done, Failed, RequestOutcome, Unknown, robust_batch

__all__ = [
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
