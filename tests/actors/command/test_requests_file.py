"""The requests file: what a good one gives, and what each bad one is told."""

from __future__ import annotations

import json

import pytest

from actors.command.bad_input import BadInput
from actors.command.requests_file import RequestLine, parse_requests, read_requests
from actors.providers.provider import ProviderFilter

GOOD = {"id": 1, "service": "uppercase", "input": {"text": "a"}}


def problem_of(content: bytes) -> str:
    with pytest.raises(BadInput) as caught:
        parse_requests(content, path="r.jsonl")
    return str(caught.value)


def line(**fields: object) -> bytes:
    return json.dumps(GOOD | fields).encode()


def test_every_field_gets_its_place():
    full = line(
        id="a-1",
        budget="0.020",
        timeout=5,
        where={"min_reputation": 70, "max_price": 1, "required_capabilities": ["en"]},
    )
    assert parse_requests(full) == [
        RequestLine(
            id="a-1",
            service="uppercase",
            input={"text": "a"},
            budget="0.02",
            timeout=5.0,
            where=ProviderFilter(min_reputation=70.0, max_price="1.00", required_capabilities={"en"}),
        )
    ]


def test_blank_lines_windows_line_ends_and_a_missing_last_line_end_do_no_harm():
    content = b"\xef\xbb\xbf" + line(id=1) + b"\r\n\n  \r\n" + line(id="1") + b"\n\n" + line(id=2)
    assert [request.id for request in parse_requests(content)] == [1, "1", 2]


def test_the_input_may_be_any_json():
    for value in (None, 0, 10**30, "ä\u2028", [1, {"a": None}]):
        (request,) = parse_requests(line(input=value))
        assert request.input == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"id": 1}', "service: expected the name of a service, but the field is missing"),
        (b'{"id": 1, "service": "a"}', "input: expected any JSON, but the field is missing"),
        (b"{oops", "expected a JSON object: object keys must be strings (byte 1)"),
        (b'{"id": 1', "expected a JSON object: Input data was truncated"),
        (b"[1]", "expected a JSON object, got array"),
        (b"null", "expected a JSON object, got null"),
        (b"[" * 100_000, "expected a JSON object, got one that is nested too deeply"),
        (b'{"id": "\xff"}', "expected UTF-8, got byte 0xff"),
        (line(id=None), "id: expected integer or string, got null"),
        (line(id=1.0), "id: expected integer or string, got number"),
        (line(id=True), "id: expected integer or string, got boolean"),
        (line(service=7), "service: expected string, got integer"),
        (line(service=""), "service: expected the name of a service, got an empty string"),
        (line(sevice="a"), "sevice: unknown field; known are id, service, input, budget, timeout, where"),
        (line(budget=0.02), 'budget: expected a string of dollars such as "0.02", got the number 0.02 (a float'),
        (line(risk=0.05), 'risk: expected a string of dollars such as "0.02", got the number 0.05 (a float'),
        (line(risk="much"), "risk: amount 'much' is not a decimal number"),
        (line(budget="cheap"), "budget: amount 'cheap' is not a decimal number"),
        (line(budget="-1"), "budget: amount '-1' is negative"),
        (line(budget="0.0000001"), "budget: amount '0.0000001' has more than 6 decimals"),
        (line(budget=[]), "budget: expected integer or string or null, got array"),
        (line(timeout="5"), "timeout: expected number or null, got string"),
        (line(timeout=0), "timeout: expected a finite number of seconds above 0, got 0"),
        (line(where=7), "where: expected object, got integer"),
        (line(where={"min_repuation": 70}), "where.min_repuation: unknown field; known are max_price, min_reputation"),
        (line(where={"min_reputation": "70"}), "where.min_reputation: expected number, got string"),
        (line(where={"min_reputation": 200}), "where: min_reputation must be from 0 to 100, got 200"),
        (line(where={"max_price": 0.1}), "where.max_price: expected a string of dollars"),
        (line(where={"required_capabilities": "en"}), "where.required_capabilities: expected array, got string"),
        (line(where={"required_capabilities": [1]}), "where.required_capabilities[0]: expected string, got integer"),
    ],
)
def test_a_fault_is_named_with_file_line_and_field(text, problem):
    found = problem_of(line(id="first") + b"\n\n" + text + b"\n{worse\n")
    assert found.startswith(f"r.jsonl: line 3: {problem}")
    assert "\n" not in found


def test_an_id_that_comes_again_is_named_with_both_lines():
    content = b"\n".join([line(id="a"), b"", line(id="b"), line(id="a")])
    assert problem_of(content) == "r.jsonl: line 4: id: expected an id of its own, got 'a', the id of line 1"


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_a_request_is_a_fault(content):
    assert "r.jsonl: expected at least one request" in problem_of(content)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    with pytest.raises(BadInput, match=r"none\.jsonl: cannot be read: No such file"):
        read_requests(str(tmp_path / "none.jsonl"))
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        read_requests(str(tmp_path))
