"""The shape of the packages in figures: `python tests/project/structure.py [CHECKOUT]` prints them."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("runtime", "actors")
MAX_LINES, MAX_PARAMETERS, MAX_IMPORTS = 50, 6, 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One source file: its dotted name, its syntax tree, and its number of lines."""

    name: str
    tree: ast.Module
    lines: int


def modules_of(root: Path) -> list[Module]:
    found: list[Module] = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            text = path.read_text(encoding="utf-8")
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, ast.parse(text), text.count("\n")))
    return found


def functions_of(module: Module) -> Iterator[Function]:
    return (node for node in ast.walk(module.tree) if isinstance(node, Function))


def imports_of(module: Module, names: set[str]) -> set[str]:
    """Return the modules of the project that a module imports, for annotations alone too."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {full if (full := f"{node.module}.{one.name}") in names else node.module for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return (found & names) - {module.name}


def positional(function: Function) -> int:
    """Return the number of parameters that may be given by position, `self` and `cls` aside."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def parameters(function: Function) -> int:
    return positional(function) + len(function.args.kwonlyargs)


def is_stub(function: Function) -> bool:
    """Tell whether a function has no body of its own: an overload, or a member of a protocol."""
    last = function.body[-1]
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...


def cycle_in(modules: list[Module]) -> list[str]:
    """Return a circle of imports; empty if there is none. The front of a package stands for nothing but itself."""
    names = {one.name for one in modules}
    try:
        list(TopologicalSorter({one.name: imports_of(one, names) for one in modules}).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def long_functions(modules: list[Module]) -> list[str]:
    return [
        f"{module.name}.{one.name} ({one.end_lineno - one.lineno + 1})"
        for module in modules
        for one in functions_of(module)
        if one.end_lineno is not None and one.end_lineno - one.lineno >= MAX_LINES
    ]


def wide_functions(modules: list[Module]) -> list[str]:
    return [
        f"{module.name}.{one.name} ({parameters(one)})"
        for module in modules
        for one in functions_of(module)
        if parameters(one) > MAX_PARAMETERS and not is_stub(one)
    ]


def front_door(modules: list[Module]) -> list[str]:
    """Return the names that `actors` shows."""
    front = next(one for one in modules if one.name == "actors")
    for node in front.tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    return [
        one.asname or one.name for node in front.tree.body if isinstance(node, ast.ImportFrom) for one in node.names
    ]


def report(root: Path) -> str:
    modules = modules_of(root)
    names = {one.name for one in modules}
    largest = max(modules, key=lambda one: one.lines)
    heavy = [one.name for one in modules if len(imports_of(one, names)) > MAX_IMPORTS]
    long, wide = long_functions(modules), wide_functions(modules)
    rows = {
        "modules": len(modules),
        "median lines of a module": median(one.lines for one in modules),
        "largest module": f"{largest.name} ({largest.lines})",
        f"functions over {MAX_LINES} lines": f"{len(long)} {long}",
        f"functions of more than {MAX_PARAMETERS} parameters": f"{len(wide)} {wide}",
        f"modules with more than {MAX_IMPORTS} internal imports": f"{len(heavy)} {heavy}",
        "names at the front door": len(front_door(modules)),
        "cycle of imports": cycle_in(modules) or "none",
    }
    return "\n".join(f"{name}: {value}" for name, value in rows.items())


if __name__ == "__main__":
    print(report(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))  # noqa: T201 - what it is for.
