"""Why a journal cannot be used: it is damaged, of another program, in use elsewhere, or cannot be written."""

from __future__ import annotations


class JournalError(Exception):
    """A journal cannot be used; `path` is its file, `problem` says why."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"journal {path!r} {problem}; {remedy}")
        self.path = path
        self.problem = problem
