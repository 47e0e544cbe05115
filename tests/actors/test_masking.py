"""What is masked, in which forms, and what is left as it is."""

from __future__ import annotations

import base64
import html
import json
import unicodedata
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.masking import NO_SECRETS, Secrets, escaped, secrets_in, shown_url

KEY = "sk-a/b+c=d&e 1234567"


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        KEY.upper(),
        quote(KEY),
        quote(KEY, safe=""),
        quote_plus(KEY),
        quote(KEY, safe="").replace("%2F", "%2f"),
        json.dumps(KEY)[1:-1],
        KEY.replace("/", r"\/").replace("+", r"\u002b"),
        html.escape(KEY),
        base64.b64encode(KEY.encode()).decode(),
        KEY[: len(KEY) // 2],
    ],
)
def test_a_secret_is_masked_in_every_form_that_echoes_have(form):
    shown = Secrets([KEY]).mask(f"the key <{form}> is wrong")
    assert shown.replace("***=", "***") == "the key <***> is wrong"


@pytest.mark.parametrize(
    ("headers", "said", "shown"),
    [
        ({"Authorization": "Bearer sk-12345"}, "sk-12345 of a bearer", "*** of a bearer"),
        ({"Authorization": "Bearer abc"}, "abc, abcd", "***, abcd"),
        ({"x-goog-api-key": "k1"}, "key k1", "key ***"),
        ({"Authorization": "Basic bWU6c2VjcmV0"}, "me may not, secret or me:secret", "me may not, *** or ***"),
        ({"Authorization": "Basic c2tfbGl2ZTo="}, "user sk_live", "user ***"),
        ({"Cookie": "sid=abcdef01; lang=en"}, "sid abcdef01 in en", "sid *** in en"),
        ({"X-Form": "json"}, "not json", "not json"),
        ({"X-Team": "team-1234"}, "no team-1234", "no ***"),
        ({"X-Title": "my translation app"}, "a translation app", "a translation app"),
    ],
)
def test_headers_are_secrets_by_their_names_and_their_length(headers, said, shown):
    assert secrets_in(headers=headers).mask(said) == shown


def test_the_user_the_password_and_the_query_of_a_url_are_secrets():
    secrets = secrets_in(headers={}, url="http://me:p%40ss@host/v1?key=k9&deployment=gpt-large&opaque-text")
    said = "me: p@ss p%40ss k9 gpt-large opaque-text host v1"
    assert secrets.mask(said) == "me: *** *** *** *** *** host v1"


def test_a_secret_is_not_cut_by_the_bound():
    text = "x" * 95 + "secret-of-mine" + "y" * 50
    assert Secrets(["secret-of-mine"]).mask(text, at_most=100) == "x" * 95 + "***"
    assert NO_SECRETS.mask(text, at_most=100) == text[:100]


def test_no_secret_is_shown_by_those_who_keep_it():
    secrets = secrets_in(headers={"Authorization": f"Bearer {KEY}"})
    assert KEY not in repr(secrets)
    assert (secrets + Secrets(["another-one"])).mask(f"{KEY} another-one") == "*** ***"


def test_long_keys_and_long_texts_take_a_bounded_time():
    secrets = secrets_in(headers={"Authorization": f"Bearer {'aB3-_.' * 2_000}"})
    assert secrets.mask("aB3-_." * 2_000_000, at_most=10_000) == "***"


@given(st.text())
def test_what_is_escaped_is_one_printable_line(text):
    shown = escaped(text)
    assert shown.isprintable()
    assert not any(unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for one in shown)
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host:8001/v1?key=abc&page=2#there", "https://host:8001/v1?key=...&page=..."),
        ("https://token@host/", "https://host/"),
        ("https://host/?opaque", "https://host/?..."),
        ("https://host/?a=b=c&&d", "https://host/?a=...&..."),
        ("me:secret@host:8001/v1", "me:host:8001/v1"),
        ("htps:/me:secret@host", "htps:host"),
        ("//me:secret@host/x", "://host/x"),
        ("host/v1", "host/v1"),
        ("http://[me:secret@host", "a URL that cannot be read"),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(url, shown):
    assert shown_url(url) == shown
