"""What was paid under keys is remembered in few bytes, for as many keys as are to be remembered and not many more."""

from __future__ import annotations

import tracemalloc

from actors.ledger.paid_keys import PaidKeys


def test_payments_under_a_key_add_up_and_the_last_provider_is_known():
    keys = PaidKeys(10)
    keys.add("k", 3, "alder")
    keys.add("other", 5, "birch")
    keys.add("k", 10**15, "birch")
    keys.restore("new", 7, "cedar")
    assert keys.all() == {"other": (5, "birch"), "k": (10**15 + 3, "birch"), "new": (7, "cedar")}
    assert (keys.paid("k"), keys.paid("none")) == ((10**15 + 3, "birch"), None)
    assert "k" in keys
    assert repr(keys) == "<PaidKeys 3 keys, 3 providers>"


def test_those_paid_last_stay_and_one_that_is_paid_again_is_new():
    keys = PaidKeys(100)
    for number in range(1_000):
        keys.add(f"{number}", 1, "alder")
        keys.add("again", 1, "alder")
        assert len(keys) <= 113
        assert all(f"{one}" in keys for one in range(max(0, number - 98), number))
    assert keys.paid("again") == (1_000, "alder")
    assert keys.has_forgotten


def test_a_key_takes_few_bytes_beside_itself():
    texts = [f"r-{number:032x}" for number in range(20_000)]
    keys = PaidKeys(10_000)
    tracemalloc.start()
    for number, text in enumerate(texts):
        keys.add(text, 1_000 + number, "alder")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 10_000 < 110
