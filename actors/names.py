"""Names and keys, which have to be text that can be written down: in a journal, in a request, in a log."""

from __future__ import annotations


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
