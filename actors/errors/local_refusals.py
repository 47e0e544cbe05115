"""Errors with which a usual client refuses a call before it sends anything. Told by names: imports no client."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from actors.errors.error_tree import lineage, text_of

if TYPE_CHECKING:
    from actors.errors.families import Scope

Refusal: TypeAlias = "tuple[Scope, str | None]"
"""The scope of the refusal, and what it concerns."""

OF_A_KEY: Refusal = ("provider", "key")
OF_AN_ADDRESS: Refusal = ("here", None)
BY_CLASS: dict[str, dict[str, Refusal]] = {
    "botocore": {
        "NoCredentialsError": OF_A_KEY,
        "PartialCredentialsError": OF_A_KEY,
        "CredentialRetrievalError": OF_A_KEY,
        "NoAuthTokenError": OF_A_KEY,
        "TokenRetrievalError": OF_A_KEY,
        "UnauthorizedSSOTokenError": OF_A_KEY,
        "SSOTokenLoadError": OF_A_KEY,
        "ProfileNotFound": OF_A_KEY,
        "ParamValidationError": ("request", None),
        "NoRegionError": OF_AN_ADDRESS,
        "UnknownServiceError": OF_AN_ADDRESS,
        "EndpointProviderError": OF_AN_ADDRESS,
    },
    "google": {"DefaultCredentialsError": OF_A_KEY},
    "httpx": {"InvalidURL": OF_AN_ADDRESS},
    "httpx2": {"InvalidURL": OF_AN_ADDRESS},
    "requests": {
        "MissingSchema": OF_AN_ADDRESS,
        "InvalidSchema": OF_AN_ADDRESS,
        "InvalidURL": OF_AN_ADDRESS,
        "InvalidHeader": OF_AN_ADDRESS,
    },
    "aiohttp": {"InvalidUrlClientError": OF_AN_ADDRESS, "NonHttpUrlClientError": OF_AN_ADDRESS},
}
"""By package, the names of classes; those derived from them are included, but not those of `AFTER_A_REDIRECT`."""
AFTER_A_REDIRECT = frozenset({"aiohttp.InvalidUrlRedirectClientError", "aiohttp.NonHttpUrlRedirectClientError"})
TABLE = {f"{package}.{name}": refusal for package, rows in BY_CLASS.items() for name, refusal in rows.items()}

NO_KEY: dict[str, tuple[str, ...]] = {
    "openai.OpenAIError": ("api_key client option must be set", "missing credentials"),
    "anthropic.AnthropicError": ("api_key client option must be set", "missing credentials"),
    "groq.GroqError": ("api_key client option must be set",),
    "builtins.TypeError": ("could not resolve authentication method",),
}
"""What clients say if they have no key, by the class that they raise, which has other meanings too."""


def local_refusal_of(error: BaseException) -> Refusal | None:
    """Return what a client found wrong with a call before anything was sent; None if the error is another.

    It speaks of one try; whether others came before is not asked here.
    """
    names = lineage(type(error))
    if not AFTER_A_REDIRECT.isdisjoint(names):
        return None
    found = next((TABLE[name] for name in names if name in TABLE), None)
    if found is None and (words := NO_KEY.get(names[0])) is not None:
        text = text_of(error).lower()
        found = OF_A_KEY if any(one in text for one in words) else None
    return found
