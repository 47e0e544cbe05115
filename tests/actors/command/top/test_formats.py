"""How figures and texts from outside are drawn: in the cells that they are given, and as nothing but text."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from actors.command.top.formats import bar, column, plain, row, sparkline
from tests.actors.dashboard.hostile import HOSTILE


@pytest.mark.parametrize("text", [*HOSTILE, "漢字" * 30, "👩‍👩‍👧 e\u0301", ""])
@pytest.mark.parametrize("width", [1, 7, -7, 40])
def test_a_column_is_as_wide_as_it_says_and_printable(text, width):
    made = column(text, width)
    assert cell_len(made.plain) == abs(width)
    assert made.plain.isprintable()
    assert made.spans == []
    assert row(made, (text, width, "red")).plain.isprintable()
    assert plain(text).plain.isprintable()
    assert plain(text).spans == []


@pytest.mark.parametrize("width", [1, 2, 10, 30])
@pytest.mark.parametrize("parts", [(0, 0, 0), (1, 1, 1), (100, 0, 0), (98, 1, 1), (10**12, 1, 10**12), (0, 0, 7)])
def test_a_bar_has_its_width_whatever_its_parts(parts, width):
    assert len(bar(parts, max(1, sum(parts)), width=width).plain) == width


def test_what_is_held_is_seen_however_little_it_is():
    assert "▓" in bar((10**9, 1, 0), 2 * 10**9, width=10).plain


def test_a_sparkline_shows_failures_though_there_is_no_value():
    made = sparkline([None, 3.0, None], (1, 0, 0), width=10)
    assert made.plain == "▁█ "
    assert [span.style for span in made.spans] == ["red", "cyan", "cyan"]
