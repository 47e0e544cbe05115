"""Prints an answer while it comes, and begins anew elsewhere if the first model breaks off in the middle."""

import asyncio

from actors import Market, RequestOptions, Supervisor
from actors.fake import FakeConfig, FakeModel, FaultPlan, fake_server
from actors.fake.faults import FakeCut
from actors.model_calls import TextDelta
from actors.models import chat_stream, compatible
from actors.transports import Restarted
from runtime import ActorSystem


async def main() -> None:
    shaky = FakeConfig(models=(FakeModel(name="shaky"),), plan=FaultPlan(faults=(FakeCut(part=0.5),)))
    steady = FakeConfig(models=(FakeModel(name="steady"),))
    async with fake_server(shaky) as first, fake_server(steady) as second, ActorSystem("chat", log=False) as system:
        listings = [
            compatible("shaky", base_url=f"{first.url}/v1", price="0.001"),
            compatible("steady", base_url=f"{second.url}/v1", price="0.002"),
        ]
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        cheapest = RequestOptions(strategy="cheapest", risk="0.01")
        stream = chat_stream(supervisor, messages="Tell me a story.", options=cheapest, after_cut="restart")
        async with stream:
            async for piece in stream:
                match piece:
                    case TextDelta(text):
                        print(text, end="", flush=True)
                    case Restarted(provider=provider):
                        print(f"\n-- {provider} broke off; all before is void --")
                    case _:
                        pass
        print(f"\n{stream.result.provider} answered; all of it cost {stream.result.cost}")


if __name__ == "__main__":
    asyncio.run(main())
