"""Proves the harness: a line that passes, one that neither checker accepts, one that only pyright rejects."""

from __future__ import annotations

from typing import assert_type


def half(number: int) -> float:
    return number / 2


assert_type(half(3), float)
half("three")  # error: pyright, mypy


def _never_called() -> None:  # error: pyright
    """Only pyright reports a private function that nothing uses."""
