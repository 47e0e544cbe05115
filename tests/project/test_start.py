"""What a start loads: counted in modules, since seconds depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import actors

HEAVY = {
    "actors.supervisor.supervisor",
    "actors.ledger.ledger",
    "actors.monitor.monitor",
    "rich.console",
    "aiohttp",
    "textual",
}


def loaded_by(code: str) -> set[str]:
    """Return the modules that a new process has loaded after `code`."""
    code = f"import json, sys\n{code}\nprint('loaded:', json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.rpartition("loaded: ")[2]))


def test_importing_the_cast_loads_none_of_it() -> None:
    of_actors = {name for name in loaded_by("import actors") if name.startswith(("actors", "runtime"))}
    assert of_actors == {"actors"}


def test_a_name_is_loaded_when_it_is_used() -> None:
    loaded = loaded_by("import actors\nactors.Micros")
    assert "actors.money" in loaded
    assert not loaded & HEAVY


def test_a_room_is_reached_one_dot_deeper_without_an_import_of_its_own() -> None:
    assert "actors.ledger.ledger" in loaded_by("import actors\nactors.ledger.Reserve")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["top", "--help"], ["runn"]])
def test_the_help_of_the_command_loads_no_actor(arguments: list[str]) -> None:
    code = f"from actors.command import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
    loaded = loaded_by(code)
    if arguments == ["runn"]:
        loaded -= {"rich.console"}
    assert not loaded & HEAVY


def test_a_name_that_does_not_exist_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'actors' has no attribute 'Supervisr'"):
        actors.Supervisr  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Supervisr'"):
        from actors import Supervisr  # type: ignore[attr-defined]  # noqa: F401, PLC0415


def test_each_name_has_one_home_and_is_what_the_home_holds() -> None:
    names = [name for home in actors.HOMES.values() for name in home]
    assert sorted(names) == sorted(actors.__all__)
    for home, names_of_home in actors.HOMES.items():
        module = import_module(home)
        assert all(getattr(actors, name) is getattr(module, name) for name in names_of_home)
