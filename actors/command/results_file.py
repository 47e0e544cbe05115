"""Write the results file: one whole JSON line for each request, written as soon as the request has ended."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path
from shutil import SameFileError
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import msgspec

from actors.batch.kept_batch import status_of
from actors.batch.outcomes import Done, Unknown
from actors.batch.resuming import paid_in_vain
from actors.command.bad_input import BadInput, one_line
from actors.command.slow_reader import ReaderTooSlow, ThreadWriter
from actors.errors.families import CallFailed
from actors.ledger.errors import PaidUnanswered, StillUnsettled
from actors.money import usd
from runtime import ActorCrashed, AskTimeout
from runtime.persistence import has_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.batch.outcomes import RequestOutcome
    from actors.money import Micros

LineStatus: TypeAlias = Literal["done", "failed", "paid", "budget", "unknown"]
"""How a request has ended: "budget" if there was too little money left for it, "paid" if its answer cannot be had."""
STANDARD_OUTPUT = frozenset({"-", "/dev/stdout"})


class CannotWrite(Exception):
    """A file that was opened cannot be written, for example because the disk is full or a pipe is closed."""


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one request; `cost` is in dollars, `error` is one line that begins with the kind of error.

    `at_risk` says how many dollars may be paid twice because other providers were paid besides, if any. `key` is the
    idempotency key of the request.
    """

    id: str | int | None
    status: LineStatus
    output: Any = None
    provider: str | None = None
    cost: str = "0.00"
    attempts: int = 0
    error: str | None = None
    at_risk: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET


def result_line(
    id: str | int | None,  # noqa: A002
    outcome: RequestOutcome,
    *,
    cost: Micros,
    attempts: int,
    key: str | msgspec.UnsetType = msgspec.UNSET,
    journal: str | None = None,
) -> ResultLine:
    """Return the line for an outcome; `cost` and `attempts` are used for a request that was not answered.

    If a call is held, its error says how to enter in the `journal` what became of it.
    """
    if isinstance(outcome, Done):
        result = outcome.result
        return ResultLine(
            id=id,
            status="done",
            output=result.output,
            provider=result.provider,
            cost=usd(result.paid if result.replayed else result.cost),
            attempts=result.attempts,
            at_risk=usd(result.at_risk) if result.at_risk else msgspec.UNSET,
            key=key,
        )
    error = outcome.error
    # If the supervisor itself gave no answer, it is unknown what it had called.
    unknown = isinstance(outcome, Unknown) or isinstance(error, AskTimeout | ActorCrashed)
    paid = paid_in_vain(error)
    return ResultLine(
        id=id,
        status="unknown" if unknown else status_of(outcome),
        provider=paid.paid_to if paid is not None else error.provider if isinstance(error, CallFailed) else None,
        cost=usd(cost if paid is None else paid.paid),
        attempts=attempts,
        error=one_line(f"{type(error).__name__}: {error}{_how_to_resolve(error, journal)}"),
        at_risk=usd(error.at_risk) if isinstance(error, CallFailed) and error.at_risk else msgspec.UNSET,
        key=key,
    )


def _how_to_resolve(error: Exception, journal: str | None) -> str:
    """Say by which commands it is entered what became of the calls of a request that are held."""
    if journal is None or not isinstance(error, CallFailed):
        return ""
    numbers = [one.reservation for one in error.held]
    if isinstance(error, StillUnsettled | PaidUnanswered) and error.reservation not in numbers:
        numbers.append(error.reservation)
    commands = " and ".join(f"understudy resolve {journal} {number}" for number in numbers)
    return f"; once the run has ended, enter what became of it: {commands} --paid USD, or --not-paid" if numbers else ""


class OutputFile:
    """An output file that is opened before any provider is called, and written in whole texts.

    An existing file with content is refused unless `overwrite` is set, or it `goes_on`; then its content is kept until
    `begin`. A file that is one of `inputs`, or that another run writes, is always refused. A new file is removed again
    if it is closed before `begin`. "-" and /dev/stdout are standard output. Raises `BadInput`.
    """

    def __init__(
        self, option: str, path: str, *, overwrite: bool = False, goes_on: bool = False, inputs: Sequence[str] = ()
    ) -> None:
        self.option = option
        self.path = path
        self.overwrite = overwrite
        self._is_new = False
        self._writer = ThreadWriter(self.write)
        try:
            if path in STANDARD_OUTPUT:
                self._descriptor = os.dup(1)
            else:
                self._descriptor, self._is_new = _open(path, overwrite=overwrite or goes_on, inputs=inputs)
        except FileExistsError:
            raise BadInput(f"{option}: {path} exists and is not empty; name another file, or add --overwrite") from None
        except SameFileError:
            raise BadInput(f"{option}: {path} is another file of this run; name another file") from None
        except BlockingIOError:
            raise BadInput(f"{option}: {path} is being written by another run; wait for it, or stop it") from None
        except OSError as error:
            raise BadInput(f"{option}: {path} cannot be written: {error.strerror}") from error

    @property
    def is_terminal(self) -> bool:
        """Whether the output goes to a terminal."""
        return os.isatty(self._descriptor)

    def read(self) -> bytes:
        """Return the content of a file; nothing of what cannot be read again."""
        if not self.is_regular:
            return b""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()

    def begin(self, content: bytes = b"") -> None:
        """Leave this content in the file, and nothing after it; if it raises `CannotWrite`, the file is as it was."""
        self._is_new = False
        if not self.is_regular:
            return
        if not content or self.read().startswith(content):
            os.ftruncate(self._descriptor, len(content))
        else:
            self._replace(content)
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def _replace(self, content: bytes) -> None:
        """Put another file in the place of this one, so that a crash leaves one of the two whole."""
        target = Path(self.path).resolve()
        new = target.with_name(f"{target.name}.new")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            lock(descriptor)
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            new.replace(target)
        except OSError as error:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            raise CannotWrite(f"{self.option}: {self.path} cannot be written: {error.strerror}") from error
        os.close(self._descriptor)
        self._descriptor = descriptor

    def write(self, text: bytes) -> None:
        """Write `text` at once. Raises `CannotWrite` if that fails, after removing the part that was written."""
        written = 0
        try:
            # A single write, except into a pipe that has too little room.
            while written < len(text):
                written += os.write(self._descriptor, text[written:])
        except OSError as error:
            if written and self.is_regular:
                end = os.lseek(self._descriptor, -written, os.SEEK_CUR)
                os.ftruncate(self._descriptor, end)
            raise CannotWrite(f"{self.option}: {self.path} cannot be written: {error.strerror}") from error

    async def put(self, value: msgspec.Struct, *, stop: asyncio.Event | None = None) -> None:
        """Write `value` as one line, and let others go on meanwhile if a reader is slow; raises as `write` does.

        Once `stop` is set, the reader of what is no file has two seconds more.
        """
        if self.is_regular or not has_threads(asyncio.get_running_loop()):
            self.write_json(value)
            return
        try:
            await self._writer.write(msgspec.json.encode(value) + b"\n", stop=stop)
        except ReaderTooSlow as error:
            raise CannotWrite(f"{self.option}: {self.path} cannot be written: {error}") from error

    def write_json(self, value: msgspec.Struct) -> None:
        """Write `value` as one line; raises as `write` does."""
        self.write(msgspec.json.encode(value) + b"\n")

    @property
    def is_regular(self) -> bool:
        """Whether it is a file that can be read again."""
        return self.path not in STANDARD_OUTPUT and stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        if self._is_new:
            Path(self.path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: str, *, overwrite: bool, inputs: Sequence[str]) -> tuple[int, bool]:
    """Return a descriptor, and whether the file is new."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        lock(descriptor)
        return descriptor, True  # noqa: TRY300 - only the opening may raise.
    except FileExistsError:
        status = os.stat(path)  # noqa: PTH116 - as below.
        mode = os.O_RDWR if stat.S_ISREG(status.st_mode) else os.O_WRONLY
        descriptor = os.open(path, mode | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            if any(_is_file(status, other) for other in inputs):
                raise SameFileError
            lock(descriptor)
            if status.st_size and not overwrite:
                raise FileExistsError
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, False


def _is_file(status: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(status, os.stat(path))  # noqa: PTH116 - compared with the status of a descriptor.
    except OSError:
        return False


if sys.platform == "win32":

    def lock(descriptor: int) -> None:
        """Do nothing: a file that is locked there could not be read by others."""
else:
    import fcntl

    def lock(descriptor: int) -> None:
        """Lock a file until it is closed, however its process ends; raises `BlockingIOError` if another run has it."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
