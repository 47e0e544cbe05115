"""Results: which line an outcome becomes, and files that are kept from harm."""

from __future__ import annotations

import os

import pytest

from actors.batch.outcomes import Done, Failed, Unknown
from actors.command.bad_input import BadInput
from actors.command.results_file import CannotWrite, OutputFile, ResultLine, result_line
from actors.errors.families import AllProvidersFailed, Attempt, NoProvider, OutcomeUnknown
from actors.money import Micros
from actors.supervisor.messages import SmartResult
from runtime import AskTimeout


def test_an_answer_has_its_provider_cost_and_attempts():
    result = SmartResult(output=[1], provider="alder", cost=Micros(1_500), attempts=2, request_id="r")
    assert result_line(7, Done(0, None, result), cost=Micros(0), attempts=0) == ResultLine(
        id=7, status="done", output=[1], provider="alder", cost="0.0015", attempts=2
    )


def test_a_failure_is_one_line_that_begins_with_its_kind():
    attempts = [
        Attempt(provider=name, error="it broke", kind="Transient", started=0.0, latency=0.1)
        for name in ("alder", "birch")
    ]
    outcome = Failed(0, None, AllProvidersFailed("uppercase", attempts=attempts))
    found = result_line("a", outcome, cost=Micros(2_000), attempts=2)
    assert (found.status, found.output, found.provider, found.cost, found.attempts) == (
        "failed",
        None,
        None,
        "0.002",
        2,
    )
    assert found.error == (
        "AllProvidersFailed: all providers of 'uppercase' failed, 2 attempts: "
        "1. alder: Transient after 0.100 s, $0.00: it broke; 2. birch: Transient after 0.100 s, $0.00: it broke"
    )


def test_what_nobody_knows_is_unknown_and_names_who_may_have_been_paid():
    outcome = Unknown(0, None, OutcomeUnknown("no answer", provider="alder"))
    found = result_line(1, outcome, cost=Micros(0), attempts=1)
    assert (found.status, found.provider, found.error) == ("unknown", "alder", "OutcomeUnknown: no answer")


def test_a_supervisor_that_gave_no_answer_leaves_the_outcome_unknown():
    error = AskTimeout("run/supervisor", "SmartRequest", timeout=1.0)
    assert result_line(1, Failed(0, None, error), cost=Micros(0), attempts=0).status == "unknown"
    refused = NoProvider("uppercase", offered=0)
    assert result_line(1, Failed(0, None, refused), cost=Micros(0), attempts=0).status == "failed"


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "o.jsonl"
    with OutputFile("--out", str(path)) as file:
        file.begin()
        file.write_json(ResultLine(id=1, status="done", output="ä\n"))
        assert path.read_bytes() == (
            '{"id":1,"status":"done","output":"ä\\n","provider":null,"cost":"0.00","attempts":0,"error":null}\n'.encode()
        )


def test_a_file_with_content_is_refused_and_kept(tmp_path):
    path = tmp_path / "o.jsonl"
    path.write_text("precious\n")
    with pytest.raises(BadInput, match=r"--out: .*o\.jsonl exists and is not empty; .* --overwrite"):
        OutputFile("--out", str(path))
    assert path.read_text() == "precious\n"


def test_with_overwrite_a_file_is_replaced_when_the_run_begins_and_not_before(tmp_path):
    path = tmp_path / "o.jsonl"
    path.write_text("precious\n")
    with OutputFile("--out", str(path), overwrite=True) as file:
        assert path.read_text() == "precious\n"
        file.begin()
        file.write(b"new\n")
    assert path.read_text() == "new\n"


def test_an_empty_file_is_no_loss(tmp_path):
    path = tmp_path / "o.jsonl"
    path.touch()
    with OutputFile("--out", str(path)) as file:
        file.begin()
        file.write(b"new\n")
    assert path.read_text() == "new\n"


def test_a_file_that_was_made_and_never_begun_is_removed(tmp_path):
    path = tmp_path / "o.jsonl"
    OutputFile("--out", str(path)).close()
    assert not path.exists()
    path.touch()
    OutputFile("--out", str(path)).close()
    assert path.exists()


@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_never_overwritten(tmp_path, link):
    path = tmp_path / "r.jsonl"
    path.write_text("{}\n")
    other = tmp_path / "o.jsonl" if link else path
    if link:
        other.symlink_to(path)
    with pytest.raises(BadInput, match="is another file of this run"):
        OutputFile("--out", str(other), overwrite=True, inputs=["missing", str(path)])
    assert path.read_text() == "{}\n"


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "-"])
def test_devices_are_taken(path):
    with OutputFile("--out", path) as file:
        file.begin()
        assert not file.is_terminal


@pytest.mark.parametrize("path", ["{0}", "{0}/none/o.jsonl"])
def test_what_cannot_be_written_is_refused(tmp_path, path):
    with pytest.raises(BadInput, match=r"--report: .* cannot be written: "):
        OutputFile("--report", path.format(tmp_path))


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "o.jsonl"
    write = os.write
    with OutputFile("--out", str(path)) as file:
        file.begin()
        file.write(b"whole\n")

        def short(descriptor: int, text: bytes) -> int:
            if len(text) < 6:
                raise OSError(28, "No space left on device")
            return write(descriptor, text[:3])

        monkeypatch.setattr(os, "write", short)
        with pytest.raises(CannotWrite, match=r"--out: .* cannot be written: No space left"):
            file.write(b"broken\n")
        monkeypatch.undo()
        assert path.read_bytes() == b"whole\n"
        file.write(b"again\n")
    assert path.read_bytes() == b"whole\nagain\n"
