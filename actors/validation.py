"""Checks of names, keys and counts that callers pass in; the errors say what is expected."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import msgspec

from actors.spelling import option_meant

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

P = ParamSpec("P")
R = TypeVar("R")

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


def check_config(name: str, config: object, kind: type[msgspec.Struct]) -> None:
    """Raise TypeError if `config` is no `kind`; of a dict of options it says what each is called there.

    >>> class Oven(msgspec.Struct):
    ...     max_heat: float = 200.0
    >>> check_config("config", {"maxHeat": 250}, Oven)
    Traceback (most recent call last):
    TypeError: config must be an Oven, got {'maxHeat': 250}; write Oven(...): 'maxHeat' is max_heat
    """
    if isinstance(config, kind):
        return
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    hint = ""
    if isinstance(config, dict):
        options = cast("dict[object, object]", config)
        hints = (f"{option!r} {option_meant(str(option), kind.__struct_fields__)}" for option in options)
        hint = f"; write {kind.__name__}(...)" + (f": {', '.join(hints)}" if options else "")
    raise TypeError(f"{name} must be {article} {kind.__name__}, got {config!r:.100}{hint}")


def unknown_option(where: str, name: str, known: Collection[str]) -> TypeError:
    """Make the error for an option that there is not; it says which one is meant.

    >>> unknown_option("with_retry", "baseDelayMs", {"base", "cap"})
    TypeError("with_retry has no option 'baseDelayMs': it is base, in seconds")
    """
    return TypeError(f"{where} has no option {name!r}: it {option_meant(name, known)}")


def says_option_names(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function with many options say which one is meant if it gets a keyword argument that it does not have."""
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    among = frozenset(known)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            unknown = next((name for name in kwargs if name not in among), None)
            if unknown is None:
                raise
            raise unknown_option(cast("Any", function).__name__, unknown, known) from None

    return checked


class SaysOptionNames(msgspec.StructMeta):
    """The metaclass of a configuration that says which option is meant if it gets one that it does not have."""

    if not TYPE_CHECKING:  # A checker goes by the fields.

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - this is a metaclass.
            try:
                return super().__call__(*args, **kwargs)
            except TypeError:
                for name in kwargs:
                    if name not in cls.__struct_fields__:
                        raise unknown_option(cls.__name__, name, cls.__struct_fields__) from None
                raise
