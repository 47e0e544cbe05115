"""What a transport of one's own says in a provider's name is made safe by its gateway."""

from __future__ import annotations

import pytest

from actors.errors import Permanent
from actors.market import Listing
from actors.provider_gateway import Call, ProviderGateway
from actors.providers import Provider
from actors.transports import FunctionTransport
from runtime import ActorSystem
from tests.actors.transports.http_upstream import a_call


async def test_words_that_a_transport_sets_itself_are_short_and_printable():
    async def refuse(_call: object) -> None:
        raise Permanent("no", said="\x1b[31m" + "x" * 1_000)

    listing = Listing(
        provider=Provider(name="alder", services={"uppercase"}),
        transport=lambda: FunctionTransport(refuse, paid=False, idempotent="no"),
    )
    async with ActorSystem("texts", log=False) as system:
        gateway = system.spawn(lambda: ProviderGateway(listing))
        with pytest.raises(Permanent) as caught:
            await gateway.ask(Call(a_call()), timeout=2.0)
    assert caught.value.said.startswith(r"\x1b[31mxxx")
    assert len(caught.value.said) == 500
