"""Why a journal cannot be used: it is damaged, of another program, in use elsewhere, or cannot be written."""

from __future__ import annotations


class JournalError(Exception):
    """A journal cannot be used; `path` is its file, `problem` says why."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"journal {path!r} {problem}; {remedy}")
        self.path = path
        self.problem = problem


class JournalFenced(JournalError):
    """A later owner has claimed the journal: nothing that this one writes is taken any more."""

    def __init__(self, path: str, *, epoch: int, latest: int) -> None:
        super().__init__(
            path, f"belongs to a later owner: its epoch is {latest}, and this owner's is {epoch}", "ask the later owner"
        )
        self.epoch = epoch
        self.latest = latest
