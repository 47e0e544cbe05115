"""What names, keys and counts have to be, said by the error of whoever gives another."""

from __future__ import annotations

MAX_COUNT = 2**53
"""The largest count that a float holds exactly, as some reckonings with it are."""


def check_text(what: str, text: object) -> None:
    """Raise TypeError for what is no text, and ValueError for a text with half a character in it.

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
            raise ValueError(f"{what} {text!r:.100} cannot be written down: {error.reason}") from None


def check_count(name: str, count: object, *, least: int = 1, unit: str = "") -> None:
    """Raise TypeError for what is no whole number, and ValueError for one below `least` or absurdly large.

    >>> check_count("max_concurrency", 1.5)
    Traceback (most recent call last):
    TypeError: max_concurrency must be a whole number, got 1.5
    """
    if type(count) is not int:
        raise TypeError(f"{name} must be a whole number, got {count!r:.100}")
    if count < least:
        raise ValueError(f"{name} must be >= {least}{unit and f' {unit}'}, got {count}")
    if count > MAX_COUNT:
        raise ValueError(f"{name} must be at most 2^53, got one of {len(f'{count:x}')} hexadecimal digits")
