"""The files in tests/typing/ are type-checked, never run: what must pass does, and what must not is rejected.

A line on which an error is expected ends in `# error: pyright, mypy`, or in the name of the only checker that
reports it. An error elsewhere fails the test, and so does an expectation that is not met.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "typing"
CHECKERS = ("pyright", "mypy")
EXPECTED = re.compile(r"# error: (?P<checkers>.+)$")
MYPY_ERROR = re.compile(r"^(?P<file>.+?):(?P<line>\d+):(?:\d+:)? error: (?P<message>.*)$", re.MULTILINE)

Errors = dict[str, str]  # "file:line" to what was reported there.


def expected_errors(files: list[Path], checker: str) -> set[str]:
    places: set[str] = set()
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if match := EXPECTED.search(line):
                checkers = {name.strip() for name in match["checkers"].split(",")}
                unknown = checkers - set(CHECKERS)
                assert not unknown, f"{file.name}:{number}: no such checker: {', '.join(sorted(unknown))}"
                if checker in checkers:
                    places.add(f"{file.name}:{number}")
    return places


def output_of(*command: str) -> str:
    """Return what a checker prints. Exit code 1 says that it found errors; a higher one, that it failed."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def pyright_errors(folder: Path) -> Errors:
    output = output_of("basedpyright", "--project", str(folder), "--pythonpath", sys.executable, "--outputjson")
    report = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py")))
    return {
        f"{Path(item['file']).name}:{item['range']['start']['line'] + 1}": item["message"]
        for item in report["generalDiagnostics"]
        if item["severity"] == "error"
    }


def mypy_errors(files: list[Path], cache: Path) -> Errors:
    output = output_of(
        "mypy",
        "--strict",
        "--config-file=",
        "--follow-imports=silent",
        "--python-version=3.11",
        "--no-pretty",
        f"--cache-dir={cache}",
        *map(str, files),
    )
    return {f"{Path(match['file']).name}:{match['line']}": match["message"] for match in MYPY_ERROR.finditer(output)}


def differences(files: list[Path], checker: str, errors: Errors) -> list[str]:
    expected = expected_errors(files, checker)
    return [
        *(f"{place}: expected an error of {checker}, got none" for place in sorted(expected - set(errors))),
        *(f"{place}: {checker}: {errors[place]}" for place in sorted(set(errors) - expected)),
    ]


def test_pyright_reports_exactly_the_expected_errors() -> None:
    files = sorted(FOLDER.glob("*.py"))

    assert differences(files, "pyright", pyright_errors(FOLDER)) == []


def test_mypy_reports_exactly_the_expected_errors(tmp_path: Path) -> None:
    files = sorted(FOLDER.glob("*.py"))

    assert differences(files, "mypy", mypy_errors(files, tmp_path)) == []


def test_an_unmet_expectation_and_an_unexpected_error_are_both_named(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text('number: int = 1  # error: pyright, mypy\ntext: int = ""\nlate: int = ""  # error: mypy\n')
    (tmp_path / "pyrightconfig.json").write_text((FOLDER / "pyrightconfig.json").read_text())

    unmet, unexpected = differences([file], "mypy", mypy_errors([file], tmp_path / "cache"))
    assert unmet == "sample.py:1: expected an error of mypy, got none"
    assert unexpected.startswith("sample.py:2: mypy: Incompatible types in assignment")

    unmet, *others = differences([file], "pyright", pyright_errors(tmp_path))
    assert unmet == "sample.py:1: expected an error of pyright, got none"
    assert [other.split(": ")[0] for other in others] == ["sample.py:2", "sample.py:3"]
