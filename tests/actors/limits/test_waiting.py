"""Why requests wait, in words."""

import pytest

from actors.limits.waiting import LearnedPace, Waiting


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        (
            Waiting(reason="learned limit", evidence=LearnedPace(rate=80.0, refusals=1, last_at=99.5)),
            "limited to 80/s since one 429, 0.5 s ago",
        ),
        (
            Waiting(reason="learned limit", evidence=LearnedPace(rate=0.5, refusals=12, last_at=40.0)),
            "limited to 0.5/s since 12 429s, 60 s ago",
        ),
        (
            Waiting(reason="learned limit", evidence=LearnedPace(rate=9.0, refusals=0, last_at=100.0)),
            "limited to 9/s by its headers",
        ),
        (
            Waiting(reason="learned limit", until=103.0, evidence=LearnedPace(rate=None, refusals=1, last_at=98.0)),
            "held back since one 429, 2.0 s ago, about 3.0 s more",
        ),
        (Waiting(reason="place", evidence="all 10 places are taken"), "place: all 10 places are taken"),
        (
            Waiting(reason="money", since=70.0, until=90.0, evidence="2 requests wait"),
            "money: 2 requests wait, for 30 s",
        ),
        (
            Waiting(reason="place", since=90.0, until=104.0, evidence="all 10 places are taken", before=1_200),
            "place: all 10 places are taken, for 10 s, 1,200 before it, about 4.0 s more",
        ),
    ],
)
def test_each_reason_says_since_when_for_how_long_and_by_what(waiting: Waiting, text: str):
    assert waiting.text(100.0) == text
