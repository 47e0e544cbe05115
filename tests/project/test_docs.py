"""Every Python block of README.md and docs/ is a test: it runs, in a directory and a module of its own.

A block marked `python no-run` is only compiled. A block of `>>>` lines runs as a doctest. A block may
`await` at its top level.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python(?P<mark>[^\n]*)\n(?P<code>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    mark: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def padded(self) -> str:
        """The code at its own line numbers, so that a traceback points into the page."""
        return "\n" * (self.line - 1) + self.code


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start("code")) + 1, match["mark"].strip(), match["code"])
        for match in BLOCK.finditer(text)
    ]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [block for page in PAGES if page.exists() for block in blocks_of(page)]


def run(block: Block, module: ModuleType) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(block.padded, str(block.page), "exec", flags=flags, dont_inherit=True)
    if block.mark == "no-run":
        return
    result = eval(code, module.__dict__)  # noqa: S307 - the project's own documentation.
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_documented_block_runs(block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert block.mark in {"", "no-run"}, f"{block.name}: expected ```python or ```python no-run"
    module = ModuleType("__main__", f"The block at {block.name}.")
    # Annotations are resolved through sys.modules, and a block that is a whole program asks for its __name__.
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.chdir(tmp_path)
    if block.code.lstrip().startswith(">>>"):
        example = doctest.DocTestParser().get_doctest(
            block.code, module.__dict__, block.name, str(block.page), block.line - 1
        )
        assert example.examples
        doctest.DebugRunner().run(example)
    else:
        run(block, module)


def test_the_readme_shows_a_program() -> None:
    assert any(block.page.name == "README.md" and block.mark != "no-run" for block in BLOCKS)


def test_a_block_starts_where_its_page_says(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nfirst = 1\n```\n\n```bash\nls\n```\n\n```python no-run\nlast\n```\n")

    assert [(block.line, block.mark, block.code) for block in blocks_of(page)] == [
        (4, "", "first = 1\n"),
        (12, "no-run", "last\n"),
    ]


def test_a_block_may_await_at_its_top_level_and_fails_at_its_own_line(tmp_path: Path) -> None:
    source = "import asyncio\nawait asyncio.sleep(0)\nassert 1 == 2\n"
    block = Block(tmp_path / "page.md", line=10, mark="", code=source)

    with pytest.raises(AssertionError) as failure:
        run(block, ModuleType("page"))

    assert failure.traceback[-1].lineno == 11  # Counted from zero: line 12 of the page.


def test_a_block_that_is_only_compiled_is_not_run(tmp_path: Path) -> None:
    module = ModuleType("page")
    run(Block(tmp_path / "page.md", line=1, mark="no-run", code="ran = True\n"), module)

    assert not hasattr(module, "ran")
