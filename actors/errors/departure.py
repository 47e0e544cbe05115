"""Whether an error of a usual client means that no byte of a request was sent. Told by names: imports no client."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from typing import TYPE_CHECKING, Literal, TypeAlias

from actors.errors.error_tree import attribute, lineage, quiet

if TYPE_CHECKING:
    from actors.errors.error_tree import ErrorNode

Departure: TypeAlias = Literal["never", "maybe"]
"""Whether the request of a failed try was sent: it never was, or it may have been."""

NEVER_SENT = (ConnectionRefusedError, socket.gaierror, socket.herror, ssl.SSLCertVerificationError)
NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
NOT_CONNECTED = NO_ROUTE | {errno.ECONNREFUSED}
SAYS_NOTHING = (OSError, ConnectionError)
"""Classes that say nothing by themselves, without a number: clients raise them from what happened."""
LOCAL_MISTAKES = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)

CLIENTS: dict[Departure, dict[str, str]] = {
    "never": {
        "httpx httpx2": "ConnectError ConnectTimeout PoolTimeout ProxyError UnsupportedProtocol",
        "httpcore httpcore2": "ConnectError ConnectTimeout PoolTimeout ProxyError UnsupportedProtocol",
        "aiohttp": "ClientConnectorError ClientConnectorCertificateError ServerFingerprintMismatch"
        " ConnectionTimeoutError",
        "requests": "ConnectTimeout",
        "urllib3": "NewConnectionError ConnectTimeoutError EmptyPoolError ClosedPoolError",
        "botocore": "EndpointConnectionError ConnectTimeoutError ProxyConnectionError",
        "httplib2": "ServerNotFoundError",
    },
    "maybe": {
        "httpx httpx2": "RequestError StreamError",
        "httpcore httpcore2": "TimeoutException NetworkError ProtocolError",
        "aiohttp": "ClientConnectionError ClientPayloadError TooManyRedirects HttpProcessingError",
        "requests": "Timeout ChunkedEncodingError ContentDecodingError TooManyRedirects",
        "urllib3": "ProtocolError ReadTimeoutError IncompleteRead",
        "botocore": "ReadTimeoutError ConnectionClosedError ResponseStreamingError IncompleteReadError",
        "http": "HTTPException",
    },
}
"""What errors of clients say: by package, the names of classes, those derived from them included. In aiohttp, urllib3
and requests, some of the first kind are derived from some of the second: the nearest class counts."""
TABLE: dict[str, Departure] = {
    f"{package}.{name}": departure
    for departure, rows in CLIENTS.items()
    for packages, names in rows.items()
    for package in packages.split()
    for name in names.split()
}


def departure_of(node: ErrorNode) -> Departure | None:
    """Tell from an error and those inside it whether the request was sent; None if they say nothing of it.

    Of several errors that stand side by side all must say "never".
    """
    return _departure(node, is_connecting=False)


def _departure(node: ErrorNode, *, is_connecting: bool) -> Departure | None:
    own = _of_client(node.error)
    if own is None:
        own = _of_system(node.error)
        if own == "maybe" and is_connecting:
            own = None  # It is why the connection could not be made.
    elif own == "never":
        is_connecting = True
    if own == "maybe":
        return own
    inner = [_departure(one, is_connecting=is_connecting) for one in node.inner]
    if "maybe" in inner:
        return "maybe"  # An earlier try, in the chain of this one.
    if own == "never" or not inner:
        return own
    return "never" if all(one == "never" for one in inner) else None


def _of_client(error: BaseException) -> Departure | None:
    return next((TABLE[name] for name in lineage(type(error)) if name in TABLE), None)


def _of_system(error: BaseException) -> Departure | None:
    """Tell it from an error of Python's own, such as `ConnectionRefusedError`."""
    kind = type(error)
    if issubclass(kind, EOFError):
        return "maybe"
    if not issubclass(kind, OSError) or issubclass(kind, LOCAL_MISTAKES):
        return None
    number = attribute(error, "errno")
    if issubclass(kind, NEVER_SENT) or (isinstance(number, int) and number in NO_ROUTE):
        return "never"
    if kind in SAYS_NOTHING and number is None:
        return "never" if _failed_at_each_address(error) else None
    return "maybe" if attribute(kind, "__module__") in {"builtins", "socket", "ssl", "asyncio.exceptions"} else None


def _failed_at_each_address(error: BaseException) -> bool:
    """Tell whether asyncio says that connecting failed at every address of a host: it lists the errors as text."""
    text = quiet(lambda: str(error))
    if not isinstance(text, str) or not text.startswith("Multiple exceptions: "):
        return False
    numbers = re.findall(r"\[Errno (\d+)\]", text)
    return len(numbers) == text.count("Connect call failed") > 0 and all(int(one) in NOT_CONNECTED for one in numbers)
