"""Lines in a file that turns: none is lost if another file cannot be begun, or if the disk is full for a while."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from actors.serve.line_log import LineLog

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("fails", ["open", "rename"])
def test_a_file_that_cannot_be_begun_is_tried_again_and_the_one_before_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
):
    def fail(*_: Any) -> int:
        raise OSError(24, "Too many open files")

    log = LineLog(tmp_path / "lines", kept_for=10.0)
    log.begin([b"0"], now=0.0)
    with monkeypatch.context() as patched:
        patched.setattr(*((os, "open") if fails == "open" else (type(tmp_path), "replace")), fail)
        for number in (11, 12):
            log.write(f"{number}".encode(), at=number)
        assert list(log.lines()) == [b"0", b"11", b"12"]
    log.write(b"13", at=13.0)
    log.write(b"20", at=20.0)
    assert list(log.lines()) == [b"0", b"11", b"12", b"13", b"20"]
    log.write(b"30", at=30.0)
    assert list(log.lines()) == [b"13", b"20", b"30"]
    log.close()


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write, log = os.write, LineLog(tmp_path / "lines", kept_for=10.0)
    log.begin([], now=0.0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, content: write(file, content[:3]))
        with pytest.raises(OSError, match="No space left"):
            log.write(b"a long one", at=1.0)
    log.write(b"next", at=2.0)
    assert list(log.lines()) == [b"a l", b"next"]
    log.close()
