"""`${NAME}` in market files: what it stands for, where, and what is said if it stands for nothing."""

from __future__ import annotations

import pytest

from actors.market import MarketError, load_market, parse_market
from actors.market.environment import Expansion
from actors.market.tables import Places

ALDER = """
[[providers]]
name = "alder"
services = ["uppercase"]
url = "https://${HOST}/v1/${PATH_KEY}?key=${QUERY_KEY}&page=2"
health_path = "/health?token=${QUERY_KEY}"
headers = { Authorization = "Bearer ${ACME_KEY}", X-Plain = "$${ACME_KEY}", X-Twice = "${NESTED}" }
"""
SET = {
    "HOST": "alder.example",
    "PATH_KEY": "path-of-ours",
    "QUERY_KEY": "query-of-ours",
    "ACME_KEY": "key-of-ours",
    "NESTED": "${ACME_KEY}",
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    def write(text: str, **environ: str) -> str:
        for name in SET:
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        path = tmp_path / "market.toml"
        path.write_text(text)
        return str(path)

    return write


def entry_of(**values: object) -> dict[str, object]:
    document = Expansion(SET, "market.toml", Places("", {})).document({"providers": [values]})
    return document["providers"][0]


def test_references_are_expanded_once_in_urls_and_headers():
    entry = entry_of(
        name="${ACME_KEY}",
        services=["${ACME_KEY}"],
        capabilities=["$${ACME_KEY}"],
        url="https://${HOST}/${PATH_KEY}",
        health_path="/health?t=${QUERY_KEY}",
        headers={"Authorization": "Bearer ${ACME_KEY}", "${ACME_KEY}": "x", "X": "${NESTED} $${HOST} $HOST $$ $${"},
    )
    assert entry == {
        "name": "${ACME_KEY}",
        "services": ["${ACME_KEY}"],
        "capabilities": ["$${ACME_KEY}"],
        "url": "https://alder.example/path-of-ours",
        "health_path": "/health?t=query-of-ours",
        "headers": {
            "Authorization": "Bearer key-of-ours",
            "${ACME_KEY}": "x",
            "X": "${ACME_KEY} ${HOST} $HOST $$ ${",
        },
    }


@pytest.mark.parametrize("odd", [3, None, "${HOST}", {"providers": 1}, [1, "x", {"url": 3, "headers": ["${HOST}"]}]])
def test_what_is_of_the_wrong_type_is_left_to_the_reader(odd):
    document = {"providers": odd}
    assert Expansion({}, "market.toml", Places("", {})).document(document) == document


def test_all_that_are_missing_are_named_at_once(write):
    with pytest.raises(MarketError) as caught:
        load_market(write(ALDER, ACME_KEY="key-of-ours", NESTED=""))
    assert caught.value.problem == (
        "these environment variables are not set, or are empty: HOST in providers[0].url ('alder', line 5), "
        "PATH_KEY in providers[0].url ('alder', line 5), QUERY_KEY in providers[0].url ('alder', line 5), "
        "NESTED in providers[0].headers.X-Twice ('alder', line 7); "
        "set them, or write $${ for the text ${ itself"
    )
    assert "key-of-ours" not in str(caught.value)


@pytest.mark.parametrize("text", ["${", "${}", "${A-B}", "${ ACME_KEY }", "${ACME_KEY", "${1X}", "${ACME_KEY:-secret}"])
def test_what_begins_no_reference_is_refused_with_its_place(write, text):
    with pytest.raises(MarketError) as caught:
        load_market(write(ALDER.replace("${ACME_KEY}", text, 1), **SET))
    assert (caught.value.key, caught.value.problem) == (
        "providers[0].headers.Authorization",
        "a ${ begins no reference; write ${NAME}, or $${ for the text ${ itself",
    )


def test_a_market_of_a_file_shows_no_secret_of_it(write):
    market = load_market(write(ALDER, **SET))
    listing = market.providers[0]
    transport = listing.transport()
    for shown in map(repr, (market, listing, listing.provider, listing.transport, transport)):
        assert "of-ours" not in shown
    assert listing.provider.address == "https://${HOST}/v1/${PATH_KEY}?key=...&page=..."
    assert repr(transport).startswith("HttpTransport(alder at https://***/v1/***?key=...&page=..., unused")


@pytest.mark.parametrize(
    "environ",
    [
        {"HOST": "host-of-ours:99999"},
        {"HOST": "me:pass-of-ours@[::1"},
        {"HOST": "host of-ours"},
        {"PATH_KEY": "path\nof-ours"},
        {"ACME_KEY": "key-of-ours\n"},
        {"ACME_KEY": "schlüssel-of-ours"},
    ],
)
def test_a_value_that_cannot_be_used_is_not_shown(write, environ):
    with pytest.raises(MarketError) as caught:
        load_market(write(ALDER, **SET | environ))
    assert "of-ours" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_text_from_elsewhere_is_not_expanded(monkeypatch):
    monkeypatch.setenv("ACME_KEY", "key-of-ours")
    text = ALDER.replace("https://${HOST}/v1/${PATH_KEY}", "https://host/${HOME}")
    transport = parse_market(text).providers[0].transport()
    assert "host/${HOME}" in repr(transport)
