"""A provider in one breath: the same listing as the long form makes, and errors that help."""

from __future__ import annotations

import pytest

import actors
from actors import FunctionTransport, Listing, Market, Provider, ProviderCall, Supervisor, provider, smart_request
from actors.market.short_form import FunctionOptions, ListingOptions, OfferOptions, ProviderOptions
from runtime import ActorSystem


async def search(call: ProviderCall) -> str:
    return f"found {call.input}"


async def test_a_provider_in_one_breath_serves_requests():
    market = Market(providers=[provider("search", search, price="0.01", service="search")])
    async with ActorSystem("short") as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        result = await smart_request(supervisor, service="search", input="it", timeout=5.0)
    assert (result.output, result.provider, result.cost) == ("found it", "search", 10_000)


def test_it_is_the_listing_of_the_long_form():
    short = provider("search", search, price="0.01", service="search", rate_limit=5, reputation=80, budget="2")
    offered = Provider(name="search", services={"search"}, price="0.01", reputation=80)
    assert short == Listing(provider=offered, transport=short.transport, rate_limit=5, budget="2")
    made = short.transport()
    assert isinstance(made, FunctionTransport)
    assert made is not short.transport()
    assert (made.paid, made.idempotent) == (True, "no")


def test_a_call_that_costs_nothing_is_not_paid_unless_it_is_said():
    assert not provider("a", search, service="s").transport().paid
    assert provider("a", search, service="s", paid=True).transport().paid


def test_a_decorated_function_becomes_a_listing_of_its_name():
    @provider(service={"search", "news"}, idempotent="key")
    async def alder(call):
        return call.input

    @provider("birch", service="search", price=1)
    def other(call):
        return call.input

    assert (alder.provider.name, alder.provider.services) == ("alder", {"search", "news"})
    assert alder.transport().idempotent == "key"
    assert (other.provider.name, other.provider.price) == ("birch", 1_000_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prize": "0.1"}, "did you mean 'price'"),
        ({"services": {"s"}}, "did you mean 'service'"),
        ({"cost": "0.1"}, "did you mean 'price'"),
        ({"rps": 3}, "did you mean 'rate_limit'"),
        ({"maxConcurrency": 3}, "did you mean 'max_concurrency'"),
        ({"time_out": 3}, "did you mean 'timeout'"),
        ({"idempotency": "key"}, "did you mean 'idempotent'"),
        ({"zzz": 3}, "known are address, available, budget"),
    ],
)
def test_a_mistyped_option_is_answered_with_what_was_meant(options, message):
    with pytest.raises(TypeError, match=message):
        provider("a", search, **({"service": "s"} | options))


def test_mistakes_are_reported_where_the_provider_is_made():
    with pytest.raises(TypeError, match="needs the service"):
        provider("a", search)
    with pytest.raises(TypeError, match="@provider\\(service="):
        provider(search)
    with pytest.raises(TypeError, match="function of one ProviderCall"):
        provider("a", 3, service="s")
    with pytest.raises(ValueError, match="idempotent"):
        provider("a", search, service="s", idempotent="maybe")
    with pytest.raises(ValueError, match="timeout"):
        provider("a", search, service="s", timeout=0)


def test_no_secret_of_its_function_is_shown():
    assert "sk-123456" not in repr(provider("a", search, service="s", secrets=["sk-123456"]))


def test_every_option_of_the_long_form_is_an_option_here():
    """One that is added there is added to `OfferOptions`, `FunctionOptions` or `ListingOptions` too."""
    assert set(OfferOptions.__annotations__) == {*Provider.__struct_fields__} - {"name", "services", "price", "model"}
    in_budget = {"budget_renewal"}  # The text of a budget says that.
    assert set(ListingOptions.__annotations__) == {*Listing.__struct_fields__} - {"provider", "transport"} - in_budget
    taken = FunctionTransport.__init__.__annotations__.keys() - {"function", "provider", "return"}
    assert set(FunctionOptions.__annotations__) == taken
    parts = (OfferOptions, FunctionOptions, ListingOptions)
    assert ProviderOptions.__annotations__.keys() == {"model"}.union(*(one.__annotations__ for one in parts))
    assert actors.provider is provider
