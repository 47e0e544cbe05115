"""A tariff wherever a price is asked for without a request: filters, dear answers, the report of a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from actors import (
    FunctionTransport,
    Listing,
    Market,
    Micros,
    Provider,
    ProviderFilter,
    ProviderReply,
    RequestOptions,
    SmartRequest,
    Supervisor,
    discover,
    smart_request,
)
from actors.command.report import RunTally
from actors.errors import NoProvider, Overpriced, Transient
from actors.events import CallEnded
from actors.model_calls.request import demand_of_input
from actors.supervisor.pipeline.job import Job
from actors.supervisor.targets import quote
from actors.tariffs import Tariff, Usage
from actors.tariffs.learned import CallHistory
from runtime import ActorSystem

BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}


async def fine(_call):
    return ProviderReply(output="fine", usage=Usage(input=9, output=3))


def listing(answer=fine, *, price="0", tariff=None, name="alder"):
    return Listing(
        provider=Provider(name=name, services={"chat"}, price=price),
        transport=lambda: FunctionTransport(answer, paid=True, idempotent="no"),
        tariff=tariff,
    )


DEAR, CHEAP = Tariff(input="10", output="30"), Tariff(input="1", output="2")


def test_a_typical_price_is_that_of_a_call_of_usual_size():
    assert listing(price="0.01").typical_price == Micros(10_000)
    assert listing(tariff=DEAR).typical_price == Micros(1_000 * 10 + 512 * 30)
    assert listing(tariff=Tariff(input="0", output="0", per_call="0.002")).typical_price == Micros(2_000)
    assert listing(tariff=CHEAP, price="0.50").typical_price == Micros(500_000)


@pytest.mark.parametrize(("most", "names"), [("0.03", ["alder", "birch"]), ("0.01", ["birch"]), ("0.001", None)])
async def test_a_filter_by_price_goes_by_what_a_tariff_costs(most, names):
    listings = [listing(tariff=DEAR), listing(tariff=CHEAP, name="birch")]

    async def registry(_service):
        return listings

    async with ActorSystem("prices", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        for who in (registry, supervisor):
            if names is None:
                with pytest.raises(NoProvider, match="2 over max_price"):
                    await discover(who, service="chat", max_price=most)
            else:
                assert [one.name for one in await discover(who, service="chat", max_price=most)] == names
        if names is not None:
            asked = smart_request(supervisor, service="chat", input=BODY, where=ProviderFilter(max_price=most))
            assert (await asked).provider in names


async def test_an_answer_that_costs_more_than_its_tokens_can_is_dear_by_that():
    async def answer(_call):
        return ProviderReply(output="fine", usage=Usage(input=500_000, output=100))

    async with ActorSystem("prices", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing(answer, tariff=CHEAP)])))
        await smart_request(supervisor, service="chat", input=BODY)
        with pytest.raises(Overpriced) as caught:
            await smart_request(supervisor, service="chat", input=BODY, timeout=5.0)
    # 89 bytes and messages at 1, and 100 tokens at 2 dollars a million.
    assert 0 < caught.value.quoted < Micros(500)
    assert "more than the $0.0003" in str(caught.value)
    assert "$0.5002" in str(caught.value)


def test_a_report_counts_calls_in_doubt_by_the_tariff():
    tally = RunTally(requests=1, prices={"alder": listing(tariff=DEAR).typical_price}, started=0.0)
    call = CallEnded(
        request_id="1", provider="alder", service="chat", attempt=1, latency=1.0, cost=Micros(0), error="OutcomeUnknown"
    )
    tally.receive(call)
    tally.count("unknown", doubt="alder")
    assert tally.report(now=1.0, ending="finished", budget_exhausted=False).in_doubt == "0.02536"


async def test_what_a_request_needs_is_counted_once_however_many_providers_are_asked(monkeypatch):
    async def shaky(_call):
        raise Transient("try elsewhere", provider="alder")

    counted = []

    def count(given):
        counted.append(given)
        return demand_of_input(given)

    monkeypatch.setattr(quote, "demand_of_input", count)
    listings = [listing(shaky, tariff=CHEAP), *(listing(tariff=DEAR, name=name) for name in ("birch", "cedar"))]
    async with ActorSystem("prices", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        result = await smart_request(
            supervisor, service="chat", input=BODY, options=RequestOptions(strategy="cheapest")
        )
    assert (result.attempts, len(counted)) == (2, 1)


@pytest.mark.parametrize("changed", ["nothing", "money", "listing", "history"])
def test_a_quote_is_kept_until_what_it_depends_on_changes(changed):
    offered = listing(tariff=CHEAP)
    made = []
    target = SimpleNamespace(name="alder", idempotent="no", quotes_by=(0, None))

    def quoted(terms, given, *, money):
        made.append(money)
        return quote.quote_of(terms, given, CallHistory(), None, tolerance=2.0, money=money)

    target.quote = quoted
    job = Job(SmartRequest(service="chat", input=BODY, budget="1", timeout=9.0), "r", started=0.0, deadline=9.0)
    job.candidates = SimpleNamespace(listings={"alder": offered})
    first = job.quote(target)
    if changed == "money":
        job.cost += 1
    elif changed == "listing":
        job.candidates.listings["alder"] = listing(tariff=DEAR)
    elif changed == "history":
        target.quotes_by = (1, None)
    again = job.quote(target)
    assert (again is first) == (changed == "nothing")
    assert len(made) == (1 if changed == "nothing" else 2)
    assert (again.price > first.price) == (changed == "listing")
