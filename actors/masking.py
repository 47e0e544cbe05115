"""What may be shown of a text from outside: secrets are masked, and no character acts on the terminal that shows it.

Pure, and bounded in time whatever the text.
"""

from __future__ import annotations

import base64
import functools
import html
import re
import traceback
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MASK = "***"
MIN_MASKED = 6
"""A shorter value is masked only if its name says that it is a secret: a header may well say "json"."""
MIN_HALVED = 16
"""Of a secret that is as long, the first half is masked too, with the word that it begins: echoes are often cut."""
MAX_SEARCHED = 65_536
"""Characters of an error and its causes that are searched for secrets."""
SECRET_NAMES = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature|session|bearer|jwt", re.IGNORECASE)
"""What the names of headers and of query parameters contain if their values are secrets."""
_PUNCTUATION = frozenset("@?#")
SCHEMES = frozenset({"basic", "bearer", "token", "key", "apikey", "api-key", "digest", "negotiate", "signature"})
"""What stands before a secret in the value of a header (RFC 9110 11.4, and the habits of providers)."""
MAX_FORMS = 256
"""Of a longer secret, only the first half is masked in every form: a pattern for all of it takes seconds to make."""


class Secrets:
    """Texts that are masked wherever they occur: as they are, quoted for a URL, JSON or HTML, or in base64.

    `values` of at least 6 characters are masked, and `certain` of any length; one shorter than 6 only as a whole word.
    Upper and lower case are alike.

    >>> secrets = Secrets(["sk-12345"], certain=["pin"])
    >>> secrets.mask("no key SK-12345, no pin, and no spin")
    'no key ***, no ***, and no spin'
    """

    def __init__(self, values: Iterable[str] = (), *, certain: Iterable[str] = ()) -> None:
        known = {*(value for value in values if len(value) >= MIN_MASKED), *certain} - {""}
        encoded = {_base64(value) for value in known if len(value) >= MIN_MASKED}
        # The longest first: of two that begin alike, the whole of the longer one is masked.
        self._values = tuple(sorted(known | encoded, key=lambda value: (-len(value), value)))

    def __repr__(self) -> str:
        return f"<Secrets {len(self._values)}>"

    def __add__(self, other: Secrets) -> Secrets:
        return Secrets(certain=(*self._values, *other._values))

    def mask(self, text: str, *, at_most: int | None = None) -> str:
        """Return `text` with each secret replaced by "***"; of a long text, what its first `at_most` characters are."""
        end = len(text) if at_most is None else min(at_most, len(text))
        # A secret that begins before the end is found although it goes on after it.
        searched = text[: end + 6 * len(self._values[0])] if self._values else ""
        lower = searched.lower()
        if not any(run in lower for run in self._runs):
            return text[:end]
        parts: list[str] = []
        position = 0
        for found in self._pattern.finditer(searched):
            if found.start() >= end:
                break
            parts += (text[position : found.start()], MASK)
            position = found.end()
        return "".join((*parts, text[position:end]))

    def cause(self, error: BaseException) -> BaseException | None:
        """Return `error` to be named as a cause; None if it, or what it came from, says a secret, or too much."""
        if not self._values:
            return error
        try:
            text = "".join(traceback.format_exception(error, limit=0))
        except Exception:  # noqa: BLE001 - whatever it raises if it is looked at, it might say a secret.
            return None
        return error if len(text) <= MAX_SEARCHED and self.mask(text) == text else None

    @functools.cached_property
    def _runs(self) -> tuple[str, ...]:
        """Letters and digits of each secret that every form of it has: if a text has none, the search is spared."""
        return tuple({max(re.findall(r"[a-z0-9]*", _least_of(value).lower()), key=len) for value in self._values})

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(_pattern_of(value) for value in self._values), re.IGNORECASE)


NO_SECRETS = Secrets()


class HidesSecrets:
    """A mixin for Structs that hold secrets: their `repr`, that of rich included, shows `shown_instead`."""

    __slots__ = ()
    __struct_fields__: tuple[str, ...]

    def shown_instead(self) -> dict[str, object]:
        """Return what is shown in place of the fields that hold secrets."""
        raise NotImplementedError

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        instead = self.shown_instead()
        for name in self.__struct_fields__:
            yield name, instead[name] if name in instead else getattr(self, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def secrets_in(*, headers: Mapping[str, str], url: str = "", values: Iterable[str] = ()) -> Secrets:
    """Return the secrets of a provider: what its headers and its URL hold, and further `values`.

    >>> secrets_in(headers={"Authorization": "Bearer sk-12345"}).mask("the key sk-12345 of a bearer is wrong")
    'the key *** of a bearer is wrong'
    """
    known, certain = list(values), list[str]()
    for name, value in (*headers.items(), *_query_of(url)):
        scheme, _, rest = value.partition(" ")
        is_secret, has_scheme = SECRET_NAMES.search(name), scheme.lower() in SCHEMES
        (certain if is_secret else known).append(value)
        if has_scheme:
            certain.append(rest.strip())
            certain += _basic_parts(rest.strip()) if scheme.lower() == "basic" else ()
        if is_secret or has_scheme:
            known += _parts_of(rest if has_scheme else value)
    certain += _credentials_of(url)
    return Secrets(known, certain=certain)


def text_of(error: BaseException) -> str:
    """Return what an error says; "" if it cannot say it."""
    try:
        return str.__getitem__(str(error), slice(None))  # Exact: a subclass of str may do anything.
    except Exception:  # noqa: BLE001 - the method of any client's error; what it cannot say, it has not said.
        return ""


def escaped(text: str) -> str:
    r"""Return `text` with every character that is not printable as an escape: it is one line, and acts on nothing.

    >>> escaped("red \x1b[31m and\nnext")
    'red \\x1b[31m and\\nnext'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown_callable(function: object) -> str:
    """Return the name of a function, or of the class of what can be called: its arguments may be secrets.

    >>> shown_callable(functools.partial(print, "secret")), shown_callable(len)
    ('print', 'len')
    """
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    return str(getattr(function, "__qualname__", type(function).__name__))


def shown_address(address: str) -> str:
    """Return the address of a provider, as a URL is shown if it holds what a URL may hide.

    >>> shown_address("0x55"), shown_address("http://me:secret@host/")
    ('0x55', 'http://host/')
    """
    return address if "//" not in address and _PUNCTUATION.isdisjoint(address) else shown_url(address)


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: without user, password, fragment, and the values of its query.

    >>> shown_url("https://me:secret@host:8001/v1?key=abc&page=2")
    'https://host:8001/v1?key=...&page=...'
    >>> shown_url("localhost:8001/v1")
    'localhost:8001/v1'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    host, path = parts.netloc.rpartition("@")[2], parts.path
    if not parts.netloc:
        path = path.rpartition("@")[2]  # What has no scheme may have a password all the same.
    names = "&".join(_shown_parameter(one) for one in parts.query.split("&") if one)
    scheme = f"{parts.scheme}://" if host else f"{parts.scheme}:" if parts.scheme else ""
    return f"{scheme}{host}{path}{'?' if names else ''}{names}"


def _shown_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}=..." if equals else "..."


def _pattern_of(value: str) -> str:
    whole = "".join(map(_forms_of, value)) if len(value) <= MAX_FORMS else re.escape(value)
    if len(value) < MIN_MASKED:
        return rf"(?<!\w){whole}(?!\w)"
    if len(value) < MIN_HALVED:
        return whole
    half = "".join(map(_forms_of, _least_of(value)))
    return rf"{whole}|{half}[\w\-.~+/=%*]*"


def _least_of(value: str) -> str:
    """Return the beginning of a secret that is masked if no more of it is there."""
    return value if len(value) < MIN_HALVED else value[: min(len(value), MAX_FORMS) // 2]


def _forms_of(character: str) -> str:
    """Return a pattern for a character, as it is or as a URL, JSON or HTML has it; letters and digits stay the same."""
    if character.isascii() and character.isalnum():
        return character
    itself = re.escape(character)
    forms = {
        itself,
        rf"\\{itself}",
        re.escape(quote(character, safe="", errors="surrogatepass")),
        rf"%{ord(character):02x}",
        rf"\\u{ord(character):04x}",
        re.escape(html.escape(character)),
    }
    if character == " ":
        forms.add(r"\+")
    return f"(?:{'|'.join(sorted(forms))})"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode(errors="replace")).decode().rstrip("=")


def _parts_of(value: str) -> Iterator[str]:
    """Yield the parts of a value that are secrets by themselves, such as those of a cookie, without their names."""
    for part in re.split(r"[\s,;]+", value):
        yield part.partition("=")[2].strip('"=')
        yield part
        yield unquote(part)


def _basic_parts(encoded: str) -> Iterator[str]:
    """Yield what the credentials of "Basic" hold (RFC 7617): a user's name is secret only if there is no password."""
    try:
        user, _, password = base64.b64decode(encoded + "===").decode(errors="replace").partition(":")
    except ValueError:
        return
    yield f"{user}:{password}"
    yield password or user


def _credentials_of(url: str) -> Iterator[str]:
    user, _, _ = _netloc_of(url).rpartition("@")
    if user:
        yield from (user, unquote(user))
        name, _, password = user.partition(":")
        yield from (password or name, unquote(password or name))


def _netloc_of(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _query_of(url: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a URL's query, encoded and decoded."""
    for parameter in url.partition("?")[2].partition("#")[0].split("&"):
        name, equals, value = parameter.partition("=")
        name, value = (name, value) if equals else ("", name)
        yield name, value
        yield name, unquote(value)
