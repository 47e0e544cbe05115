"""What a client may call a model, and names that could be taken two ways."""

from __future__ import annotations

import pytest

from actors import Provider, ProviderFilter
from actors.serve.names import Alias, Named, Names
from actors.serve.problems import Problem

SWIFT = Provider(name="a", services={"chat", "swift"}, model="swift", reputation=90)
GRAND = Provider(name="b", services={"chat", "grand"}, model="grand", reputation=40)
SPEECH = Provider(name="c", services={"speech"})
ALL = (SWIFT, GRAND, SPEECH)


def passing(named: Named, providers=ALL) -> set[str]:
    offered = [one for one in providers if named.service in one.services]
    return {one.name for one in offered if named.where.matches(one) is None}


@pytest.mark.parametrize(
    ("name", "service", "strategy", "passes"),
    [
        ("auto", "chat", None, {"a", "b"}),
        ("cheapest", "chat", "cheapest", {"a", "b"}),
        ("fastest", "chat", "fastest", {"a", "b"}),
        ("chat", "chat", None, {"a", "b"}),
        ("swift", "swift", None, {"a"}),
        ("speech", "speech", None, {"c"}),
        ("either", "chat", "cheapest", {"a", "b"}),
        ("one", "grand", None, {"b"}),
        ("good", "chat", None, {"a"}),
    ],
)
def test_a_name_is_an_alias_a_service_a_model_or_a_word(name, service, strategy, passes):
    aliases = {
        "either": Alias(models=("swift", "grand"), strategy="cheapest"),
        "one": Alias(models=("grand",)),
        "good": Alias(where=ProviderFilter(min_reputation=80)),
    }
    named = Names(ALL, aliases).resolve(name)
    assert (named.service, named.strategy, passing(named)) == (service, strategy, passes)


@pytest.mark.parametrize(
    ("providers", "aliases", "said"),
    [
        (ALL, {"auto": Alias()}, "stands for any model"),
        (ALL, {"swift": Alias()}, "an alias and a service or model too"),
        (ALL, {"smart": Alias(models=("swfit",))}, "near it are swift"),
        (ALL, {"smart": Alias(service="chatt")}, "near it are chat"),
        ((*ALL, Provider(name="d", services={"swift"}, model="other")), {}, "serves another model"),
        ((*ALL, Provider(name="d", services={"cheapest"})), {}, "stands for any model"),
    ],
)
def test_a_name_with_two_meanings_is_refused_at_once(providers, aliases, said):
    with pytest.raises(ValueError, match=said):
        Names(providers, aliases)


def test_only_models_that_are_allowed_are_found():
    names = Names(ALL, {"smart": Alias(models=("swift", "grand"))})
    allowed = frozenset({"grand"})
    assert names.listed(allowed) == ["smart", "auto", "cheapest", "fastest", "grand"]
    for name in ("smart", "auto", "grand", "chat"):
        assert passing(names.resolve(name, allowed=allowed)) == {"b"}
    for name in ("swift", "speech", "none", ""):
        with pytest.raises(Problem) as caught:
            names.resolve(name, allowed=allowed)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")
        assert "swift" not in caught.value.message.partition(";")[2]


def test_a_name_means_the_same_object_each_time():
    names = Names(ALL)
    allowed = frozenset({"swift"})
    assert names.resolve("auto", allowed=allowed) is names.resolve("auto", allowed=allowed)
    # What is unknown is not kept: a client could fill the memory with it.
    for number in range(100):
        with pytest.raises(Problem):
            names.resolve(f"none-{number}")
    assert len(names._made) == 1
