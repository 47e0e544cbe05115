"""How often a proof by repetition is repeated: a part as often as it says, or as often as it says with `--nightly`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Extent:
    """Set once, before any test is read: some say their numbers to decorators."""

    is_whole: bool = False


EXTENT = Extent()


def repeated(count: int, *, at_least: int = 1, part: int = 10) -> int:
    """Return how often to repeat what is proved by `count` repetitions, and shows nothing below `at_least`.

    By default that is one in ten; a dear proof says a larger `part`.
    """
    return count if EXTENT.is_whole else max(at_least, -(-count // part))
