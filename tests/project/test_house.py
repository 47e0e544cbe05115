"""The rules of the house that no linter knows, as facts about the files."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import actors
import runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("runtime", "actors")
MAX_TEXT_BYTES = 1_000_000

# Names that say nothing about what is inside, and therefore attract everything.
VAGUE = {"base", "common", "core", "helpers", "manager", "utils"}

# Test files whose subject is real time, each with its reason; every other test gives time as an argument.
MAY_SLEEP: dict[str, str] = {
    "tests/actors/command/http_providers.py": "the latency of a provider that is a process",
    "tests/actors/spread/ray_batch.py": "a run in another process is waited for, in which a machine is killed",
    "tests/actors/transports/test_http_large.py": "a ticker of 1 ms measures how long the loop is held up",
    "tests/runtime/observability/test_watchdog.py": "handlers that stop the loop are what it is about",
    "tests/runtime/simulation/test_surroundings.py": "time.sleep is what it says is refused",
}

# The backslashes keep this file from containing what it forbids.
FOREIGN = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)"
    r"|(?<![\w.~)}/-])/(?:home|opt|root|Users|work)/\w"
)


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def own_files(root: Path) -> Iterator[Path]:
    """Yield the project's own files: no environment, no cache, no repository data, no build."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name != ".ci"
            if not hidden and path.name not in {"__pycache__", "build", "dist"} and path.suffix != ".egg-info":
                yield from own_files(path)
        elif path.stat().st_size <= MAX_TEXT_BYTES:
            yield path


def foreign_words(root: Path) -> list[str]:
    found: list[str] = []
    for path in own_files(root):
        content = path.read_bytes()
        if b"\0" in content:
            continue  # Not text.
        for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
            found.extend(f"{path.relative_to(root)}:{number}: {word}" for word in FOREIGN.findall(line))
    return found


def real_sleeps(source: str) -> list[int]:
    """Return the lines of `source` that make a test wait for the machine's clock.

    That is `time.sleep` anywhere; and any other sleep for a positive literal time in what is marked `real_time`,
    for elsewhere an async test runs in virtual time.
    """
    tree = ast.parse(source)
    marks = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    module_is_real = any(mark.startswith("pytestmark") and "real_time" in mark for mark in marks)
    lines: set[int] = set()
    for statement in tree.body:
        decorators = getattr(statement, "decorator_list", [])
        is_real = module_is_real or any("real_time" in ast.unparse(one) for one in decorators)
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and node.args:
                name = ast.unparse(node.func)
                delay = node.args[0]
                waits = isinstance(delay, ast.Constant) and isinstance(delay.value, int | float) and delay.value > 0
                if name == "time.sleep" or (is_real and waits and name.rpartition(".")[2] == "sleep"):
                    lines.add(node.lineno)
    return sorted(lines)


def guarantees() -> list[int]:
    text = (ROOT / "docs" / "SEMANTICS.md").read_text(encoding="utf-8")
    return [int(number) for number in re.findall(r"^## G(\d+)\b", text, re.MULTILINE)]


def cited_guarantees() -> dict[int, str]:
    """Return each guarantee that a test names, with one file that does."""
    return {
        int(number): str(path.relative_to(ROOT))
        for path in python_files("tests")
        if path.parent.name != "project"
        for number in re.findall(r"\bG(\d+)\b", path.read_text(encoding="utf-8"))
    }


def test_no_module_has_a_vague_name() -> None:
    modules = list(python_files(*PACKAGES, "examples", "tests"))
    assert modules

    vague = [
        str(path.relative_to(ROOT))
        for path in modules
        if VAGUE & {part.strip("_") for part in (*path.relative_to(ROOT).parent.parts, path.stem)}
    ]

    assert vague == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_opens_with_its_idea(package: str) -> None:
    modules = list(python_files(package))
    assert modules

    silent = [
        str(path.relative_to(ROOT))
        for path in modules
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert silent == []


def test_a_class_name_means_one_thing_in_the_whole_project() -> None:
    places: dict[str, list[str]] = {}
    for path in python_files(*PACKAGES):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert places

    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_loguru_is_imported_in_one_file_at_most() -> None:
    importing = [
        str(path.relative_to(ROOT))
        for path in python_files(*PACKAGES)
        if re.search(r"^\s*(?:from|import) loguru\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]

    assert len(importing) <= 1, importing  # .importlinter says which.


def test_no_test_waits_for_real_time() -> None:
    sleeping = {
        f"{name}:{line}"
        for path in python_files("tests")
        if (name := str(path.relative_to(ROOT))) not in MAY_SLEEP
        for line in real_sleeps(path.read_text(encoding="utf-8"))
    }

    assert sleeping == set()
    assert [name for name in MAY_SLEEP if not (ROOT / name).exists()] == []


def test_a_real_sleep_is_recognised() -> None:
    source = """\
import asyncio, time
async def test_virtual(): await asyncio.sleep(3600)
@pytest.mark.real_time
async def test_real():
    await asyncio.sleep(0)
    await asyncio.sleep(0.1)
def test_sync(): time.sleep(delay)
"""
    assert real_sleeps(source) == [6, 7]
    assert real_sleeps("pytestmark = pytest.mark.real_time\nasync def test(): await anyio.sleep(1)\n") == [2]


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    assert foreign_words(ROOT) == []


@pytest.mark.parametrize("word", ["https://py" + "pi.org/simple", "see /ho" + "me/me/x", "'/wo" + "rk/x'"])
def test_a_registry_or_a_path_of_one_machine_is_recognised(word: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(f"fine: a/work/b, https://example.org/home/x\n{word}\n")

    assert [found.split(" ")[0] for found in foreign_words(tmp_path)] == ["docs/page.md:2:"]


def test_the_guarantees_are_numbered_from_one_without_gaps() -> None:
    numbers = guarantees()

    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


def test_every_guarantee_is_named_by_a_test() -> None:
    assert set(guarantees()) - set(cited_guarantees()) == set()


def test_no_test_names_a_guarantee_that_is_not_given() -> None:
    given = set(guarantees())

    assert {number: path for number, path in cited_guarantees().items() if number not in given} == {}


def test_what_the_readme_tells_people_to_run_is_a_target_and_runs_in_ci() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shell = re.findall(r"^```(?:bash|console|sh)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    told = set(chain.from_iterable(re.findall(r"\bmake ([a-z]+)", block) for block in shell))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    in_ci = set(re.findall(r"^\s*make ([a-z]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))

    assert {"demo", "test"} <= told
    assert told <= targets
    assert told - {"clean", "constraints", "format", "help", "setup"} <= in_ci


@pytest.mark.parametrize("package", [actors, runtime], ids=["actors", "runtime"])
def test_everything_public_can_say_what_it_is(package: ModuleType) -> None:
    public = {
        name: value
        for name, value in ((name, getattr(package, name)) for name in package.__all__)
        if (inspect.isfunction(value) or isinstance(value, type))
    }
    assert len(public) > 50
    for name, value in public.items():
        assert name in pydoc.render_doc(value)
        if not (isinstance(value, type) and issubclass(value, Exception)):
            assert inspect.signature(value)
