"""From a scenario to the command that repeats one of its runs, and back from the name in the command to the scenario."""

from __future__ import annotations

import importlib.util
import inspect
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.simulation.simulation import Scenario


class NoScenario(ValueError):
    """A name that was to lead to a scenario does not."""


def replay_command(
    scenario: Scenario[Any], seed: int, *, keep: Sequence[int] | None = None, order: str = "seeded"
) -> str | None:
    """Return the command that repeats one run of a scenario; None for one that is not a function of a file."""
    code = getattr(scenario, "__code__", None)
    if code is None or "<" in scenario.__qualname__ or "." in scenario.__qualname__ or code.co_filename.startswith("<"):
        return None
    path = Path(code.co_filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    words = ["understudy", "simulate", f"{path}::{scenario.__qualname__}", "--seed", str(seed)]
    if keep is not None:
        words += ["--keep", ",".join(map(str, keep)) or "none"]
    if order != "seeded":
        words += ["--order", order]
    return shlex.join(words)


def find_scenario(name: str) -> Scenario[Any]:
    """Return the scenario that `path.py::function` names.

    Raises `NoScenario` where there is no such file or function, or it is not async; what the file raises passes through.
    """
    path_name, separator, function = name.partition("::")
    path = Path(path_name)
    if not separator or not function:
        raise NoScenario(f"{name!r} does not name a scenario; write path.py::function")
    if not path.is_file():
        raise NoScenario(f"there is no file {path_name}")
    module_name = path.stem.replace("-", "_")
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise NoScenario(f"{path_name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # As `python path.py` would: what lies beside the file can be imported, and so can what is in this directory.
    for place in (str(path.parent.resolve()), str(Path.cwd())):
        if place not in sys.path:
            sys.path.insert(0, place)
    sys.modules.setdefault(module_name, module)
    spec.loader.exec_module(module)
    scenario = getattr(module, function, None)
    if not inspect.iscoroutinefunction(scenario):
        there = [one for one, value in vars(module).items() if inspect.iscoroutinefunction(value)]
        have = f"; there are {', '.join(there)}" if there else ""
        raise NoScenario(f"{path_name} has no async function {function!r}{have}")
    return scenario
