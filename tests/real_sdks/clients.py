"""One call of each real client and SDK, to any address, with a number of retries of its own."""

from __future__ import annotations

import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 1.0
"""Seconds that a client waits for an answer."""
MESSAGES: list[Any] = [{"role": "user", "content": "x"}]


def of_openai(url: str, retries: int) -> Any:
    import openai

    with openai.OpenAI(api_key="x", base_url=url, max_retries=retries, timeout=PATIENCE) as client:
        return client.chat.completions.create(model="m", messages=MESSAGES)


async def of_openai_async(url: str, retries: int) -> Any:
    import openai

    async with openai.AsyncOpenAI(api_key="x", base_url=url, max_retries=retries, timeout=PATIENCE) as client:
        return await client.chat.completions.create(model="m", messages=MESSAGES)


def of_anthropic(url: str, retries: int) -> Any:
    import anthropic

    with anthropic.Anthropic(api_key="x", base_url=url, max_retries=retries, timeout=PATIENCE) as client:
        return client.messages.create(model="m", max_tokens=3, messages=MESSAGES)


def of_botocore(url: str, retries: int) -> Any:
    import botocore.session
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": retries + 1, "mode": "standard"}, read_timeout=PATIENCE, connect_timeout=PATIENCE
    )
    client = botocore.session.get_session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="a",
        aws_secret_access_key="b",  # noqa: S106 - no secret.
        config=config,
    )
    return client.invoke_model(modelId="m", body=b"{}")


def genai_options(url: str, retries: int) -> Any:
    options: dict[str, Any] = {"base_url": url, "timeout": int(PATIENCE * 1000)}
    if retries:
        options["retry_options"] = {"attempts": retries + 1, "initial_delay": 0.01}
    return options


def of_genai(url: str, retries: int) -> Any:
    from google import genai

    client = genai.Client(api_key="x", http_options=genai_options(url, retries))
    return client.models.generate_content(model="m", contents="x")


async def of_genai_async(url: str, retries: int) -> Any:
    from google import genai

    client = genai.Client(api_key="x", http_options=genai_options(url, retries))
    async with client.aio as calls:
        return await calls.models.generate_content(model="m", contents="x")


def of_litellm(url: str, retries: int) -> Any:
    import litellm

    return litellm.completion(
        model="openai/m", api_base=url, api_key="x", messages=MESSAGES, max_retries=retries, timeout=PATIENCE
    )


def of_httpx(url: str, retries: int) -> Any:
    import httpx

    assert not retries
    with httpx.Client(timeout=PATIENCE) as client:
        return client.post(url, json={}).raise_for_status()


async def of_httpx2_async(url: str, retries: int) -> Any:
    import httpx2

    assert not retries
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        return (await client.post(url, json={})).raise_for_status()


async def of_aiohttp(url: str, retries: int) -> Any:
    import aiohttp

    assert not retries
    timeout = aiohttp.ClientTimeout(sock_read=PATIENCE, sock_connect=PATIENCE)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, json={}, raise_for_status=True) as response,
    ):
        return await response.read()


def of_requests(url: str, retries: int) -> Any:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    with requests.Session() as session:
        if retries:
            again = Retry(total=retries, allowed_methods=None, status_forcelist=[], backoff_factor=0)
            session.mount("http://", HTTPAdapter(max_retries=again))
        session.post(url, json={}, timeout=PATIENCE).raise_for_status()


def of_urllib(url: str, retries: int) -> Any:
    assert not retries
    return urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=PATIENCE)  # noqa: S310 - loopback.


def of_tenacity(url: str, retries: int) -> Any:
    import httpx
    import tenacity

    @tenacity.retry(stop=tenacity.stop_after_attempt(retries + 1), reraise=True)
    def post() -> Any:
        with httpx.Client(timeout=PATIENCE) as client:
            return client.post(url, json={}).raise_for_status()

    return post()


CLIENTS: dict[str, tuple[str, Callable[[str, int], Any]]] = {
    "openai": ("openai", of_openai),
    "openai async": ("openai", of_openai_async),
    "anthropic": ("anthropic", of_anthropic),
    "botocore": ("botocore", of_botocore),
    "google-genai": ("google.genai", of_genai),
    "google-genai async": ("google.genai", of_genai_async),
    "litellm": ("litellm", of_litellm),
    "httpx": ("httpx", of_httpx),
    "httpx2": ("httpx2", of_httpx2_async),
    "aiohttp": ("aiohttp", of_aiohttp),
    "requests": ("requests", of_requests),
    "urllib": ("urllib", of_urllib),
    "tenacity": ("tenacity", of_tenacity),
}
"""The package that each call needs, and the call."""
RETRYING = ("openai", "openai async", "anthropic", "botocore", "google-genai", "litellm", "requests", "tenacity")
"""The clients that retry on their own if they are asked to."""


def is_installed(name: str) -> bool:
    package = CLIENTS[name][0]
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # A package of a namespace that is missing too.
        return False


INSTALLED = [name for name in CLIENTS if is_installed(name)]
MISSING = sorted({CLIENTS[name][0] for name in CLIENTS if name not in INSTALLED})
