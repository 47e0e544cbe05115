"""Asks whichever of two models is up, within a budget. A server on this machine plays them, so it needs no key."""

import asyncio

from actors import Market, Supervisor
from actors.fake import FakeConfig, FakeModel, fake_server
from actors.models import chat, compatible
from runtime import ActorSystem


async def main() -> None:
    models = FakeConfig(models=(FakeModel(name="swift"), FakeModel(name="thorough")))
    async with fake_server(models) as server, ActorSystem("chat", log=False) as system:
        url = f"{server.url}/v1"
        swift = compatible("swift", base_url=url, price="0.001")  # In earnest: openai("gpt-5-mini")
        thorough = compatible("thorough", base_url=url, price="0.01")  # anthropic("claude-sonnet-4-6")
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[swift, thorough])))
        answer = await chat(supervisor, messages="Say hello.", max_tokens=40, budget="0.05")
        print(f"{answer.provider} answered for {answer.cost}: {answer.text}")


if __name__ == "__main__":
    asyncio.run(main())
