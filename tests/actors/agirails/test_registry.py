"""The public list of AGIRAILS, from a real server on loopback that answers in its shape."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from agirails.api.discover import _parse_result
from loguru import logger

from actors.agirails.network import AgirailsNetwork
from actors.agirails.registry import MAX_PAGES, PAGE, AgirailsRegistry
from actors.discovery.discovery import Discovery
from actors.discovery.messages import Discover
from actors.errors.families import CallFailed, RegistryDown, Throttled, Transient
from runtime import ActorSystem
from tests.real_time import FAR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.real_time

REQUESTER = "0x" + "a1" * 20


def a_row(slug: str = "alder", **changes: Any) -> dict[str, Any]:
    """Return a row with all that a row can have."""
    config = {
        "name": f"{slug.title()} Ltd",
        "description": "translates",
        "capabilities": ["translation", "summaries"],
        "pricing": {"amount": 0.1, "currency": "USDC", "unit": "job"},
        "payment_mode": "actp",
        "sla": {"uptime": 0.99},
        "endpoints": {"https": "https://alder.example"},
    }
    stats = {
        "reputation_score": 9150,
        "completed_transactions": 97,
        "failed_transactions": 3,
        "success_rate": 97.0,
        "total_gmv_usdc": "1234.56",
        "avg_completion_time_seconds": 2.5,
    }
    return {
        "slug": slug,
        "wallet_address": f"0x{int.from_bytes(slug.encode()):040x}",
        "published_config": config | changes.pop("config", {}),
        "published_at": "2026-01-01T00:00:00Z",
        "status": "active",
        "stats": stats | changes.pop("stats", {}),
    } | changes


class Site:
    """Answers a GET with `status`, `headers` and those of `rows` that are asked for."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.queries: list[dict[str, list[str]]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1/discover"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = urlsplit(head.split(" ")[1])
        assert target.path == "/api/v1/discover"
        query = parse_qs(target.query)
        self.queries.append(query)
        begin, count = int(query["offset"][0]), int(query["limit"][0])
        answer = {"agents": self.rows[begin : begin + count], "total": len(self.rows), "ranking": None}
        body = json.dumps(answer).encode() if self.body is None else self.body
        lines = [f"HTTP/1.1 {self.status} X", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()
    await server.wait_closed()


@pytest.fixture
def registry(site: Site, tmp_path: Path) -> AgirailsRegistry:
    network = AgirailsNetwork(state_directory=tmp_path, requester=REQUESTER)
    return AgirailsRegistry(network.listing, url=site.url, timeout=FAR)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def test_the_rows_of_these_tests_have_the_shape_that_the_sdk_reads():
    (agent,) = _parse_result({"agents": [a_row()], "total": 1}).agents
    assert (agent.slug, agent.published_config.pricing.amount, agent.stats.reputation_score) == ("alder", 0.1, 9150)


async def test_a_row_becomes_a_provider_with_its_price_and_record(site: Site, registry: AgirailsRegistry):
    site.rows = [a_row(), a_row("birch", config={"pricing": {"amount": "0.25"}}, stats={"reputation_score": 91.5})]

    alder, birch = [listing.provider for listing in await registry("translation")]

    assert (alder.name, alder.price, alder.reputation) == ("alder", 100_000, 91.5)
    assert alder.services == alder.capabilities == {"translation", "summaries"}
    assert (alder.response_time, alder.success_rate, alder.available) == (2.5, 0.97, True)
    assert alder.address == f"0x{int.from_bytes(b'alder'):040x}"
    assert (birch.price, birch.reputation) == (250_000, 0.915)
    assert site.queries == [{"capability": ["translation"], "limit": [str(PAGE)], "offset": ["0"]}]


@pytest.mark.parametrize(
    ("amount", "micros"),
    [(8.2, 8_200_000), (0.07, 70_000), ("1.000001", 1_000_001), (3, 3_000_000), (0.01, 50_000)],
)
async def test_a_price_is_exact_and_no_less_than_the_least(
    site: Site, registry: AgirailsRegistry, amount: Any, micros: int
):
    site.rows = [a_row(config={"pricing": {"amount": amount, "currency": "USDC", "unit": None}})]

    (listing,) = await registry("translation")
    assert listing.provider.price == micros


async def test_a_provider_without_a_record_has_the_one_that_is_assumed(site: Site, registry: AgirailsRegistry):
    none = dict.fromkeys(("reputation_score", "completed_transactions", "failed_transactions", "success_rate"), 0)
    site.rows = [a_row() | {"stats": None}, a_row("birch", stats=none | {"avg_completion_time_seconds": None})]

    for listing in await registry("translation"):
        assert (listing.provider.reputation, listing.provider.success_rate) == (50.0, 1.0)
        assert listing.provider.response_time == 1.0


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("alder", "Expected `object`"),
        ({"slug": "alder"}, "wallet_address"),
        (a_row(published_config=None), "published_config"),
        (a_row(slug=""), "name of a provider must not be empty"),
        (a_row(wallet_address="0x12"), "40 hexadecimal digits"),
        (a_row(config={"pricing": None}), "it has no price"),
        (a_row(config={"pricing": {"amount": 1, "currency": "EUR"}}), "not in USDC"),
        (a_row(config={"pricing": {"amount": 1, "unit": "1k tokens"}}), "not for a call"),
        (a_row(config={"pricing": {"amount": -1}}), "negative"),
        (a_row(config={"pricing": {"amount": 0.0000001}}), "more than 6 decimals"),
        (a_row(config={"pricing": {"amount": True}}), "must be a str, int"),
        (a_row(config={"pricing": {"amount": float("nan")}}), "float"),
        (a_row(config={"payment_mode": "x402"}), "not through an escrow"),
        (a_row(stats={"reputation_score": 10_001}), "reputation must be from 0 to 100"),
        (a_row(stats={"completed_transactions": "many"}), "completed_transactions"),
        (a_row(stats={"completed_transactions": -1}), "its counts of transactions are negative"),
        (a_row(stats={"completed_transactions": 10**400, "failed_transactions": 1 - 10**400}), "are negative"),
        (a_row() | {"slug": "evil\ud800"}, "cannot be encoded as UTF-8"),
        (a_row() | {"slug": "long" * 100_000, "wallet_address": "0x12"}, "longlonglong"),
    ],
)
async def test_a_row_that_cannot_be_used_is_left_out_with_a_line_that_says_why(
    site: Site, registry: AgirailsRegistry, lines: list[str], row: Any, why: str
):
    site.rows = [row, a_row("birch")]

    assert [listing.provider.name for listing in await registry("translation")] == ["birch"]
    assert len(lines) == 1
    assert why in lines[0]
    assert len(lines[0]) < 400


@pytest.mark.parametrize("number", ["1e99999999999999999999", "9" * 5000, "-1e99999999999999999999"])
@pytest.mark.parametrize("field", ["amount", "reputation_score", "completed_transactions", "uptime"])
async def test_a_number_beyond_reading_spoils_its_row_alone_if_that(
    site: Site, registry: AgirailsRegistry, field: str, number: str
):
    rows = json.dumps([a_row("birch"), a_row()])
    before = {"amount": "0.1", "reputation_score": "9150", "completed_transactions": "97", "uptime": "0.99"}[field]
    end = rows.rindex(f'"{field}": {before}') + len(f'"{field}": {before}')
    site.body = f'{{"agents": {rows[: end - len(before)]}{number}{rows[end:]}}}'.encode()

    names = [listing.provider.name for listing in await registry("translation")]
    assert names == (["birch", "alder"] if field == "uptime" else ["birch"])


async def test_who_does_not_offer_the_service_is_not_listed(site: Site, registry: AgirailsRegistry, lines: list[str]):
    site.rows = [a_row(), a_row("birch", config={"capabilities": ["poems"]})]

    assert [listing.provider.name for listing in await registry("translation")] == ["alder"]
    assert lines == []


async def test_a_long_list_is_read_page_by_page(site: Site, registry: AgirailsRegistry):
    site.rows = [a_row(f"provider-{number}") for number in range(2 * PAGE + 1)]
    for number, row in enumerate(site.rows):
        row["wallet_address"] = f"0x{number:040x}"

    assert len(await registry("translation")) == 2 * PAGE + 1
    assert [query["offset"] for query in site.queries] == [["0"], ["100"], ["200"]]


async def test_a_list_that_asks_to_be_left_alone_is(site: Site, registry: AgirailsRegistry):
    site.status, site.headers = 429, {"Retry-After": "3000"}

    with pytest.raises(Throttled) as caught:
        await registry("translation")
    assert caught.value.retry_after == 3000.0
    with pytest.raises(Throttled) as caught:
        await registry("translation")
    assert caught.value.retry_after is not None
    assert 2000.0 < caught.value.retry_after <= 3000.0
    assert len(site.queries) == 1


async def test_what_a_list_has_asked_for_outlasts_an_answer_that_was_under_way(registry: AgirailsRegistry):
    heads: list[str] = []
    is_asked, first_has_ended = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if "capability=b&" in heads[-1]:
            is_asked.set()
            await first_has_ended.wait()
            writer.write(b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 429 X\r\nRetry-After: 3000\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        registry = AgirailsRegistry(registry._list_as, url=url, timeout=FAR)
        under_way = asyncio.create_task(registry("b"))
        await is_asked.wait()
        for _ in range(2):
            with pytest.raises(Throttled):
                await registry("a")
            first_has_ended.set()
            with pytest.raises(Transient):
                await under_way
    assert len(heads) == 2


async def test_discovery_says_how_long_its_list_wants_to_be_left_alone(site: Site, registry: AgirailsRegistry):
    site.status, site.headers = 429, {"Retry-After": "30"}
    async with ActorSystem("town", log=False) as system:
        discovery = system.spawn(lambda: Discovery(registry))
        with pytest.raises(RegistryDown) as down:
            await discovery.ask(Discover(service="translation"), timeout=FAR)
    assert down.value.retry_after == 30.0


async def test_no_list_is_left_alone_for_ever(site: Site, registry: AgirailsRegistry):
    site.status, site.headers = 429, {"Retry-After": "9" * 9}
    with pytest.raises(Throttled):
        await registry("translation")
    with pytest.raises(Throttled, match=r"for 3\d\d\d\.\d s more"):
        await registry("translation")


async def test_of_a_page_no_more_is_read_than_was_asked_for(site: Site, registry: AgirailsRegistry, lines: list[str]):
    site.body = json.dumps({"agents": [1] * 50_000}).encode()
    assert await registry("translation") == []
    assert len(lines) == PAGE * MAX_PAGES


async def test_two_names_at_one_address_are_one_provider(site: Site, registry: AgirailsRegistry):
    site.rows = [a_row(), a_row("birch", wallet_address=a_row()["wallet_address"].upper().replace("X", "x"))]
    assert [listing.provider.name for listing in await registry("translation")] == ["alder"]


async def test_a_list_is_asked_again_when_its_time_has_come(site: Site, registry: AgirailsRegistry):
    site.status, site.headers = 429, {"Retry-After": "0"}
    with pytest.raises(Throttled):
        await registry("translation")

    site.status, site.rows = 200, [a_row()]
    assert len(await registry("translation")) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"agents": 7}', b'{"agents": [], "total": "all"}'])
async def test_an_answer_that_is_no_list_means_that_the_registry_is_down(
    site: Site, registry: AgirailsRegistry, body: bytes
):
    site.body = body
    with pytest.raises(RegistryDown, match="its list cannot be read"):
        await registry("translation")


async def test_a_list_that_fails_or_is_not_there_raises_what_its_status_means(
    site: Site, registry: AgirailsRegistry, tmp_path: Path
):
    site.status = 502
    with pytest.raises(Transient):
        await registry("translation")
    network = AgirailsNetwork(state_directory=tmp_path, requester=REQUESTER)
    with pytest.raises(CallFailed):
        await AgirailsRegistry(network.listing, url="http://127.0.0.1:9/", timeout=FAR)("translation")
    with pytest.raises(ValueError, match="timeout must be > 0"):
        AgirailsRegistry(network.listing, timeout=0)
    for url in ("nonsense", "", "ftp://agirails.app/", "https://agirails.app/discover?page=1"):
        with pytest.raises(ValueError, match="url must be like https:"):
            AgirailsRegistry(network.listing, url=url)


async def test_discovery_finds_them_and_serves_them(site: Site, registry: AgirailsRegistry):
    site.rows = [a_row(), a_row("birch")]

    async with ActorSystem("town", log=False) as system:
        discovery = system.spawn(lambda: Discovery(registry))
        found = await discovery.ask(Discover(service="translation"), timeout=FAR)
        assert [provider.name for provider in found.providers] == ["alder", "birch"]
        assert "api/v1/discover" in repr(registry)
