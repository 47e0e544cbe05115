"""The public surface: few names at the front, each package's own list, and every name shown in use."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import actors
import runtime

ROOT = Path(__file__).resolve().parents[2]
RUN_BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)

FRONT_DOOR = [
    "Acquire",
    "AllProvidersFailed",
    "Attempt",
    "BreakerConfig",
    "BreakerOpen",
    "BudgetExceeded",
    "Bulkhead",
    "CallFailed",
    "CircuitBreaker",
    "Discovery",
    "Done",
    "Failed",
    "FunctionTransport",
    "GetStatus",
    "Hedge",
    "Isolate",
    "Ledger",
    "Limiter",
    "Listing",
    "Market",
    "Micros",
    "Monitor",
    "NoProvider",
    "NotAdmitted",
    "OutcomeUnknown",
    "Permanent",
    "Policy",
    "Provider",
    "ProviderCall",
    "ProviderFilter",
    "ProviderGateway",
    "ProviderReply",
    "RateLimiter",
    "Registry",
    "Release",
    "RequestOptions",
    "Retry",
    "SmartRequest",
    "SmartResult",
    "Supervisor",
    "TargetStatus",
    "Throttled",
    "TokenBucket",
    "Transient",
    "Transport",
    "Unclassified",
    "Unknown",
    "batch_process",
    "check_health",
    "concurrent",
    "discover",
    "is_retryable_error",
    "load_market",
    "provider",
    "robust_batch",
    "select_best",
    "smart_request",
    "to_micros",
    "with_retry",
]


def packages() -> list[str]:
    found = [actors.__name__, runtime.__name__]
    for root in (actors, runtime):
        found += [one.name for one in pkgutil.walk_packages(root.__path__, f"{root.__name__}.") if one.ispkg]
    return found


def code_that_runs() -> list[str]:
    """Return the examples, the blocks of README and docs, and the examples in docstrings."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    code = [block for page in pages for block in RUN_BLOCK.findall(page.read_text(encoding="utf-8"))]
    code += [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.py"))]
    parser = doctest.DocTestParser()
    for package in ("actors", "runtime"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    shown = parser.get_examples(ast.get_docstring(node) or "")
                    code.append("".join(example.source for example in shown))
    return [one if not one.startswith(">>>") else plain(one) for one in code]


def plain(session: str) -> str:
    return "".join(example.source for example in doctest.DocTestParser().get_examples(session))


def used_names(code: str) -> set[str]:
    """Return the names that a program uses: an import alone, or a name in a list of names, is no use."""
    tree = compile(code, "code", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.Module)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


USED = set[str]().union(*map(used_names, code_that_runs()))


def test_the_front_door_of_actors_shows_what_is_pinned_here() -> None:
    assert sorted(actors.__all__) == FRONT_DOOR
    assert len(FRONT_DOOR) <= 60


def test_the_front_door_of_runtime_is_small() -> None:
    assert len(runtime.__all__) <= 64


@pytest.mark.parametrize("name", packages())
def test_a_package_lists_what_is_public_and_has_it(name: str) -> None:
    package = importlib.import_module(name)
    assert sorted(package.__all__) == sorted(set(package.__all__))
    assert [one for one in package.__all__ if not hasattr(package, one)] == []


@pytest.mark.parametrize("name", packages())
def test_every_public_name_is_used_in_a_page_an_example_or_a_docstring(name: str) -> None:
    assert sorted(set(importlib.import_module(name).__all__) - USED) == []


def test_an_import_alone_is_no_use() -> None:
    assert used_names("from actors import Retry, usd\nusd(1)\nprint([await x.y])") == {"usd", "print", "x", "y"}
