"""Whether the last error of a client speaks for every try that it made, as far as the error itself tells.

A client that retries, or follows redirects, raises the error of its last try; the first may have been at work. Clients
tell how often they tried in a header, in a field, or in the frames that their error has passed through.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from actors.errors.carried_answer import answer_of
from actors.errors.classification import classify_status
from actors.errors.departure import departure_of
from actors.errors.error_tree import attribute, contexts_of, lineage, name_of, quiet, root_of, sound, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from actors.errors.error_tree import ErrorNode

RETRY_COUNTS = ("x-stainless-retry-count", "x-retry-count")
"""Headers of a request in which the SDKs of openai, anthropic, groq and others count its repetitions."""
WRAPPERS_OF_RETRIES = frozenset({"RetryError", "RetriesExceeded", "MaxRetriesExceeded", "RetryExhausted"})
ONE_TRY = (
    "actors",
    "runtime",
    "aiohappyeyeballs",
    "aiohttp",
    "anyio",
    "boto3",
    "botocore",
    "ddtrace",
    "google.genai",
    "h11",
    "h2",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "litellm",
    "opentelemetry",
    "requests",
    "sentry_sdk",
    "tenacity",
    "trio",
    "urllib3",
    "uvloop",
    "wrapt",
)
"""Installed packages that make one try, unless their frames show that they made more (see `_tries_in`)."""
MANY_TRIES = ("litellm.router", "litellm.litellm_core_utils.fallback_utils")
COUNTING = ("openai", "anthropic", "groq", "cerebras")
"""Packages that retry, and count it in a header of the request."""
INSTALLED = ("site-packages", "dist-packages")
MAX_FRAMES = 1000
REPEATED_BY_AIOHTTP = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class Tries(NamedTuple):
    """What is known of the tries that a client made: how many are `counted`, if it counts them.

    `are_several` means that at least one more came before the last, of which nothing is known, and `may_be_several`
    that a package had a hand in it which may retry.
    """

    counted: int | None = None
    are_several: bool = False
    may_be_several: bool = False

    def speak_for_all(self, *, client_retries: bool | None) -> bool:
        """Tell whether the error is that of every try; `client_retries` is what is declared of the client."""
        if self.are_several or client_retries:
            return False
        return client_retries is False or not self.may_be_several


def tries_of(tree: ErrorNode, *, until: BaseException | None = None) -> Tries:
    """Return what an error tells of the tries that its client made; `until` is an error of before the call."""
    counted = [count for node in tree.walk() for count in _counts_of(node)]
    frames = {id(frame): frame for node in tree.walk() for frame in _frames_of(node.error)}.values()
    counted += [count for frame in frames if (count := _tries_in(frame)) is not None]
    count = max(counted, default=None)
    modules = [_module_of(frame) for frame in frames]
    several = (count or 1) > 1 or _repeats(frames) or _has_earlier_try(tree, until=until)
    may_be_several = any(_may_retry(frame, counted=bool(counted)) for frame in frames) or any(
        _within(module, MANY_TRIES) for module in modules
    )
    return Tries(count, several, may_be_several or _is_uncounted(tree, counted=bool(counted)))


def _counts_of(node: ErrorNode) -> Iterator[int]:
    """Yield the number of tries that an error tells by its fields."""
    error = node.error
    response, attempt = attribute(error, "response"), attribute(error, "last_attempt")
    for request in (attribute(error, "request"), attribute(response, "request")):
        headers = attribute(request, "headers")
        for name in RETRY_COUNTS:
            value = sound(quiet(lambda headers=headers, name=name: cast("Any", headers).get(name)))
            if isinstance(value, str) and value.isascii() and value.isdigit():
                yield int(value[:6]) + 1
    if attempt is not None or name_of(type(error)) in WRAPPERS_OF_RETRIES:
        number = attribute(attempt, "attempt_number")
        yield max(number, 1) if type(number) is int else 2  # If it does not say, at least one came before.
    told = quiet(lambda: cast("Any", response)["ResponseMetadata"]["RetryAttempts"])
    if type(told) is int:
        yield max(told, 0) + 1
    # An SDK's own error may have a history of something else.
    redirected: list[object] = [response, error if root_of(type(error)) == "aiohttp" else None]
    for holder in redirected:
        redirects = attribute(holder, "history")
        number = quiet(redirects.__len__) if isinstance(redirects, tuple | list) else 0
        if isinstance(number, int) and number:
            yield number + 1


def _frames_of(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames that an error has passed through."""
    trace, left = attribute(error, "__traceback__"), MAX_FRAMES
    while isinstance(trace, TracebackType) and left:
        yield trace.tb_frame
        trace, left = trace.tb_next, left - 1


def _tries_in(frame: FrameType) -> int | None:
    """Return how many tries the frame of a known client has made; None if it makes none, and 2 for several."""
    match (_module_of(frame), frame.f_code.co_name):
        case ("httpx._client" | "httpx2._client", "_send_handling_redirects"):
            return _with_history(frame.f_locals)
        case ("aiohttp.client", "_request"):
            known = frame.f_locals
            has_repeated = (
                known.get("retry_persistent_connection") is False
                and str(known.get("method")).upper() in REPEATED_BY_AIOHTTP
            )
            return 2 if has_repeated else _with_history(known)
        case ("botocore.endpoint", "_send_request"):
            attempts = frame.f_locals.get("attempts")
            return attempts if type(attempts) is int else 2
        case ("tenacity" | "tenacity.asyncio", "__call__"):
            number = attribute(frame.f_locals.get("retry_state"), "attempt_number")
            return number if type(number) is int else 2
        case ("requests.sessions", "resolve_redirects"):
            return 2
        case ("urllib.request", name) if name.startswith("http_error_") and name != "http_error_default":
            return 2
        case _:
            return None


def _with_history(known: Mapping[str, object]) -> int:
    """Return the tries of a client that keeps the redirects it followed in a variable `history`."""
    history = known.get("history")
    return len(cast("list[object]", history)) + 1 if isinstance(history, list) else 2


def _repeats(frames: Any) -> bool:
    """Tell whether urllib3 has called itself, as it does for each retry and redirect."""
    calls = [_module_of(frame) for frame in frames if frame.f_code.co_name == "urlopen"]
    return any(calls.count(module) > 1 for module in ("urllib3.connectionpool", "urllib3.poolmanager"))


def _may_retry(frame: FrameType, *, counted: bool) -> bool:
    """Tell whether a frame is of an installed package that may retry, for all that is known of it."""
    module = _module_of(frame)
    if not any(place in frame.f_code.co_filename for place in INSTALLED) or _within(module, ONE_TRY):
        return False
    return not (counted and _within(module, COUNTING))


def _is_uncounted(tree: ErrorNode, *, counted: bool) -> bool:
    """Tell whether an error is of an SDK that counts its tries, but has no count, as one of an older version."""
    return not counted and any(
        name.partition(".")[0] in COUNTING for node in tree.walk() for name in lineage(type(node.error))
    )


def _has_earlier_try(tree: ErrorNode, *, until: BaseException | None) -> bool:
    """Tell whether the error was raised while one of a request that may have been sent was handled, or from one."""
    nodes = list(tree.walk())
    if any(_was_at_work(node.error, than=tree.error) for node in nodes[1:]):
        return True
    known = {id(node.error) for node in nodes}
    for node in nodes:
        for context in contexts_of(node.error, until=until):
            if id(context) in known:
                continue
            known.add(id(context))
            # Below the outermost error, one of the system's is why a connection failed.
            if departure_of(tree_of(context)) == "maybe" and (node is tree or _is_of_client(context)):
                return True
            if _was_at_work(context, than=tree.error):
                return True
    return False


def _was_at_work(error: BaseException, *, than: BaseException) -> bool:
    """Tell whether an error carries another answer `than` the last one, and one after which a call may be paid."""
    answer = answer_of(error)
    if answer is None:
        return False
    last = answer_of(than)
    if last is not None and last.status == answer.status:
        return False  # An SDK's own error for the same answer.
    if answer.status < 300:
        return True
    meant = classify_status(
        answer.status,
        provider="",
        headers=answer.headers,
        body=answer.body,
        host=answer.host,
        paid=True,
        idempotent=False,
    )
    return meant.charged != "no"


def _is_of_client(error: BaseException) -> bool:
    """Tell whether an error is more than the system's reason for a connection that failed."""
    return not issubclass(type(error), OSError) or root_of(type(error)) != "builtins"


def _module_of(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
