"""The files of a fake server."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from actors.fake.files import read_config, read_plan
from actors.fake.provider import FakeProvider

PAGE = Path(__file__).resolve().parents[3] / "docs" / "fake.md"


def test_the_file_of_the_page_is_one():
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    config = read_config(text)
    assert FakeProvider(config).plan.faults[0].until == 45
    assert config.models[0].limits.requests == 500


@pytest.mark.parametrize("text", ["faults = 1", "[[faults]]\nkind = 'outrage'", "{", "= ="])
def test_what_is_no_plan_is_refused(text: str):
    with pytest.raises(ValueError, match=r"\S"):
        read_plan(text)


def test_a_plan_that_was_told_can_be_sent_back():
    plan = read_plan('[[faults]]\nkind = "outage"\nsince = 5.0\n[[faults]]\nkind = "cut"\nshare = 0.5\nuntil = 9.0')
    assert read_plan(msgspec.json.encode(plan).decode()) == plan
