"""Name a scenario as `path.py::function`, write the command that repeats one of its runs, and find it by that name."""

from __future__ import annotations

import importlib.util
import inspect
import shlex
import sys
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.simulation.schedule import write_deviations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from runtime.simulation.simulation import Order, Scenario


class NoScenario(ValueError):
    """No scenario has the given name."""


def replay_command(
    scenario: Scenario[Any],
    seed: int,
    *,
    keep: Sequence[int] | None = None,
    order: Order = "seeded",
    max_steps: int | None = None,
) -> str | None:
    """Return the command that repeats one run of a scenario; None if no `path.py::function` names it."""
    path = path_of(scenario)
    if path is None:
        return None
    words = ["understudy", "simulate", f"{path}::{scenario.__name__}", "--seed", str(seed)]
    if keep is not None:
        words += ["--keep", ",".join(map(str, keep)) or "none"]
    if order != "seeded":
        words += ["--order", order if isinstance(order, str) else write_deviations(order)]
    if max_steps is not None:
        words += ["--max-steps", str(max_steps)]
    return shlex.join(words)


def read_keep(text: str) -> tuple[int, ...]:
    """Return the numbers of the faults that a command keeps. Raises ValueError for any other text.

    >>> read_keep("1,4"), read_keep("none")
    ((1, 4), ())
    """
    if text == "none":
        return ()
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ValueError(f'expected numbers of faults from 0 up, such as "1,4", or "none", got {text!r}')
    return tuple(int(part) for part in text.split(","))


def path_of(scenario: Scenario[Any]) -> Path | None:
    """Return the file in which `find_scenario` finds this very function, from this directory; None if there is none."""
    inner = inspect.unwrap(scenario)
    name, names = getattr(scenario, "__name__", ""), getattr(inner, "__globals__", {})
    # A function that is decorated elsewhere, nested or a method is not what its file calls by this name.
    if not inspect.iscoroutinefunction(scenario) or names.get(name) is not scenario:
        return None
    path = Path(inner.__code__.co_filename)
    if not path.is_file():
        return None
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def find_scenario(name: str) -> Scenario[Any]:
    """Return the scenario that `path.py::function` names.

    Raises `NoScenario` if there is no such file or function, if it is not async, or if it needs more than a simulation.
    What the file itself raises passes through.
    """
    path_name, separator, function = name.partition("::")
    path = Path(path_name)
    if not separator or not function:
        raise NoScenario(f"{name!r} does not name a scenario; write path.py::function")
    if not path.is_file():
        raise NoScenario(f"there is no file {path_name}")
    module = load(path)
    scenario = getattr(module, function, None)
    if not inspect.iscoroutinefunction(scenario):
        there = [one for one, value in vars(module).items() if inspect.iscoroutinefunction(value)]
        have = f"; there are {', '.join(there)}" if there else ""
        raise NoScenario(f"{path_name} has no async function {function!r}{have}")
    signature = inspect.signature(scenario)
    try:
        signature.bind(*[None][: len(signature.parameters)])
    except TypeError:
        raise NoScenario(
            f"{name} takes {', '.join(signature.parameters)}; a scenario takes no parameter, or one, which is the "
            "simulation"
        ) from None
    return scenario


def load(path: Path) -> ModuleType:
    """Run a file as a new module, even if a module of its name is loaded already."""
    stem = path.stem.replace("-", "_")
    names = chain([stem], (f"{stem}_{number}" for number in count(2)))
    module_name = next(one for one in names if one not in sys.modules)
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise NoScenario(f"{path} is not a Python file; write path.py::function")
    module = importlib.util.module_from_spec(spec)
    # As with `python path.py`, files beside this one can be imported; and so can files in this directory.
    for folder in (str(Path.cwd()), str(path.parent.resolve())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    # Annotations are looked up in the module by its name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
