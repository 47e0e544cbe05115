"""Tests for keys: two scopes never share one, and a provider never sees a caller's text."""

from __future__ import annotations

from itertools import product
from random import Random

from actors.ledger.keys import OWN_ID, provider_key, scoped_key

TEXTS = ["", "a", "'", '"', "\\", "'a' b", "tenant 'a' b", "account 'a' b", "key a", "key key a", " a", "ä\n", "a' b"]
OWN = f"{OWN_ID}{7:032x}"


def test_two_pairs_of_scope_and_text_never_have_one_key():
    pairs = [(kind, scope, text) for kind, scope, text in product(("tenant", "account"), TEXTS, TEXTS)]
    pairs += [("", "", text) for text in TEXTS]
    keys = {scoped_key(text, **{kind: scope} if kind else {}) for kind, scope, text in pairs}
    assert len(keys) == len(pairs)
    assert len({provider_key(key) for key in keys}) == len(pairs)


def test_odd_texts_do_not_share_a_key_either():
    rng, seen = Random(1), dict[str, tuple[str | None, str | None, str]]()
    alphabet = ["'", '"', "\\", " ", "a", "tenant ", "account ", "key "]
    for _ in range(3_000):
        tenant, account, text = ("".join(rng.choices(alphabet, k=rng.randrange(5))) for _ in range(3))
        asked = rng.choice([(tenant, None, text), (None, account, text), (None, None, text)])
        key = scoped_key(asked[2], tenant=asked[0], account=asked[1])
        assert seen.setdefault(key, asked) == asked


def test_the_tenant_goes_before_the_account_and_an_account_without_a_name_is_no_scope():
    assert scoped_key("k", tenant="a", account="b") == scoped_key("k", tenant="a")
    assert scoped_key("k", account="unnamed account 7") == scoped_key("k") == "k"


def test_a_made_up_identity_is_told_as_it_is_and_holds_in_its_scope_like_any_other_key():
    assert scoped_key(OWN) == provider_key(OWN) == OWN
    scoped = {scoped_key(OWN), scoped_key(OWN, tenant="a"), scoped_key(OWN, tenant="b"), scoped_key(OWN, account="a")}
    assert len({provider_key(key) for key in scoped}) == len(scoped) == 4


def test_a_provider_is_told_nothing_of_the_text():
    key = provider_key(scoped_key("secret project", tenant="acme"))
    assert "secret" not in key
    assert "acme" not in key
    assert len(key) == 32
    assert key.isascii()
