"""Whether two functions make the same transport: a registry may make a function anew with each answer. Pure."""

from __future__ import annotations

import functools
import types
from typing import Any, cast

MAX_DEPTH = 4
"""How deep functions within functions are compared."""


def makes_same(one: Any, other: Any, *, depth: int = MAX_DEPTH) -> bool:
    """Tell whether two makers of transports are alike: the same code with the same values, such as keys.

    >>> def reached_with(key):
    ...     return lambda: print(key)
    >>> makes_same(reached_with("old"), reached_with("old")), makes_same(reached_with("old"), reached_with("new"))
    (True, False)
    """
    if one is other:
        return True
    if type(one) is not type(other) or not depth:
        return False
    if isinstance(one, functools.partial):
        return _are_same([one.func, one.args, one.keywords], [other.func, other.args, other.keywords], depth)
    if isinstance(one, types.FunctionType):
        return one.__code__ is other.__code__ and _are_same(parts_of(one), parts_of(other), depth)
    if isinstance(one, types.MethodType):
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    if isinstance(one, list | tuple):
        return _are_same(cast("list[object]", one), other, depth)
    if isinstance(one, dict):
        mine = cast("dict[object, object]", one)
        return mine.keys() == other.keys() and _are_same(list(mine.values()), [other[key] for key in mine], depth)
    if isinstance(one, str | bytes | int | float):
        return one == other
    return False


def parts_of(function: types.FunctionType) -> list[object]:
    """Return the values that a function has taken in: its defaults, and the variables from around it."""
    cells: list[object] = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # The variable has no value yet.
            cells.append(None)
    return [function.__defaults__, function.__kwdefaults__, *cells]


def _are_same(ones: Any, others: Any, depth: int) -> bool:
    return len(ones) == len(others) and all(
        makes_same(one, other, depth=depth - 1) for one, other in zip(ones, others, strict=True)
    )
