"""Checks of names, keys and counts that callers pass in; the errors say what is expected."""

from __future__ import annotations

MAX_COUNT = 2**53
"""The largest count that a float holds exactly; some counts are used in float arithmetic."""
MAX_HELD_FOR = 1e12
"""Seconds, some 30,000 years: a longer `held_for`, such as infinity, is shortened to this, which JSON can hold."""


def check_text(what: str, text: object) -> None:
    """Raise TypeError if `text` is not a str, and ValueError if it cannot be encoded (a lone surrogate).

    >>> check_text("name", 7)
    Traceback (most recent call last):
    TypeError: name must be a str, got 7
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, got {text!r:.100}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{what} {text!r:.100} cannot be encoded as UTF-8: {error.reason}") from None


def check_count(name: str, count: object, *, least: int = 1, unit: str = "") -> None:
    """Raise TypeError if `count` is not an int, and ValueError if it is below `least` or above `MAX_COUNT`.

    >>> check_count("max_concurrency", 1.5)
    Traceback (most recent call last):
    TypeError: max_concurrency must be a whole number, got 1.5
    """
    if type(count) is not int:
        raise TypeError(f"{name} must be a whole number, got {count!r:.100}")
    if count < least:
        raise ValueError(f"{name} must be >= {least}{unit and f' {unit}'}, got {count}")
    if count > MAX_COUNT:
        raise ValueError(f"{name} must be at most 2^53, got a number of {len(f'{count:x}')} hexadecimal digits")


def checked_held_for(held_for: object) -> float:
    """Return how many seconds money is held at most; raises TypeError if it is no number, ValueError if not above 0.

    >>> checked_held_for(60), checked_held_for(float("inf"))
    (60.0, 1000000000000.0)
    """
    if isinstance(held_for, bool) or not isinstance(held_for, int | float):
        raise TypeError(f"held_for must be a number of seconds, or None for ever, got {held_for!r:.100}")
    if not held_for > 0:
        raise ValueError(f"held_for must be > 0 seconds, or None for ever, got {held_for}")
    return float(min(held_for, MAX_HELD_FOR))
