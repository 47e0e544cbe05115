"""Write the results file: one whole JSON line for each request, written as soon as the request has ended."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from shutil import SameFileError
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from actors.batch.outcomes import Done, Unknown
from actors.command.bad_input import BadInput, one_line
from actors.errors.families import CallFailed
from actors.money import usd
from runtime import ActorCrashed, AskTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.batch.outcomes import RequestOutcome
    from actors.money import Micros

STANDARD_OUTPUT = frozenset({"-", "/dev/stdout"})


class CannotWrite(Exception):
    """A file that was opened cannot be written, for example because the disk is full or a pipe is closed."""


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one request; `cost` is in dollars, `error` is one line that begins with the kind of error.

    `at_risk` says how many dollars may be paid twice because other providers were paid besides, if any.
    """

    id: str | int
    status: Literal["done", "failed", "unknown"]
    output: Any = None
    provider: str | None = None
    cost: str = "0.00"
    attempts: int = 0
    error: str | None = None
    at_risk: str | msgspec.UnsetType = msgspec.UNSET


def result_line(id: str | int, outcome: RequestOutcome, *, cost: Micros, attempts: int) -> ResultLine:  # noqa: A002
    """Return the line for an outcome; `cost` and `attempts` are used for a request that was not answered."""
    if isinstance(outcome, Done):
        result = outcome.result
        return ResultLine(
            id=id,
            status="done",
            output=result.output,
            provider=result.provider,
            cost=usd(result.cost),
            attempts=result.attempts,
            at_risk=usd(result.at_risk) if result.at_risk else msgspec.UNSET,
        )
    error = outcome.error
    # If the supervisor itself gave no answer, it is unknown what it had called.
    unknown = isinstance(outcome, Unknown) or isinstance(error, AskTimeout | ActorCrashed)
    return ResultLine(
        id=id,
        status="unknown" if unknown else "failed",
        provider=error.provider if isinstance(error, CallFailed) else None,
        cost=usd(cost),
        attempts=attempts,
        error=one_line(f"{type(error).__name__}: {error}"),
        at_risk=usd(error.at_risk) if isinstance(error, CallFailed) and error.at_risk else msgspec.UNSET,
    )


class OutputFile:
    """An output file that is opened before any provider is called, and written in whole texts.

    An existing file with content is refused unless `overwrite` is set; then its content is kept until `begin`. A file
    that is one of `inputs` is always refused. A new file is removed again if it is closed before `begin`. "-" and
    /dev/stdout are standard output. Raises `BadInput`.
    """

    def __init__(self, option: str, path: str, *, overwrite: bool = False, inputs: Sequence[str] = ()) -> None:
        self.option = option
        self.path = path
        self._is_new = False
        try:
            if path in STANDARD_OUTPUT:
                self._descriptor = os.dup(1)
            else:
                self._descriptor, self._is_new = _open(path, overwrite=overwrite, inputs=inputs)
        except FileExistsError:
            raise BadInput(f"{option}: {path} exists and is not empty; name another file, or add --overwrite") from None
        except SameFileError:
            raise BadInput(f"{option}: {path} is another file of this run; name another file") from None
        except OSError as error:
            raise BadInput(f"{option}: {path} cannot be written: {error.strerror}") from error

    @property
    def is_terminal(self) -> bool:
        """Whether the output goes to a terminal."""
        return os.isatty(self._descriptor)

    def begin(self) -> None:
        """Empty the file."""
        self._is_new = False
        if self._is_regular():
            os.ftruncate(self._descriptor, 0)

    def write(self, text: bytes) -> None:
        """Write `text` at once. Raises `CannotWrite` if that fails, after removing the part that was written."""
        written = 0
        try:
            # A single write, except into a pipe that has too little room.
            while written < len(text):
                written += os.write(self._descriptor, text[written:])
        except OSError as error:
            if written and self._is_regular():
                end = os.lseek(self._descriptor, -written, os.SEEK_CUR)
                os.ftruncate(self._descriptor, end)
            raise CannotWrite(f"{self.option}: {self.path} cannot be written: {error.strerror}") from error

    def write_json(self, value: msgspec.Struct) -> None:
        """Write `value` as one line; raises as `write` does."""
        self.write(msgspec.json.encode(value) + b"\n")

    def _is_regular(self) -> bool:
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
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), True
    except FileExistsError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            if any(_is_file(status, other) for other in inputs):
                raise SameFileError
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
