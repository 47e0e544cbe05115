"""What an error answer says, wherever it says it: the codes and words in its JSON, XML, page, text or headers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias, cast

import msgspec

Form: TypeAlias = Literal["fields", "page", "text"]
"""JSON or XML, whose fields have names; an HTML page; or anything else."""

CODE_FIELDS = frozenset(
    {
        "code",
        "type",
        "status",
        "reason",
        "errorcode",
        "errortype",
        "errcode",
        "statuscode",
        "httpcode",
        "kind",
        "name",
        "errorreason",
    }
)
"""The fields that hold the code of an error, as `_plain` writes their names."""
WORD_FIELDS = frozenset(
    {
        *("message", "msg", "detail", "details", "error", "errors", "errormessage", "errormsg", "errmsg"),
        *("errordescription", "description", "title", "reason", "statusmsg", "explanation", "fault", "faultstring"),
        *("hint", "raw", "text"),
    }
)
"""The fields that hold words. What was sent is quoted in others: "input", "value", "failed_generation"."""
FURTHER_FIELDS = frozenset(
    {
        "error",
        "errors",
        "detail",
        "details",
        "innererror",
        "message",
        "metadata",
        "baseresp",
        "response",
        "fault",
        "violations",
    }
    | {"data", "cause", "body", "issues", "meta", "status", "extensions"}
)
"""The fields whose content describes the error further."""
KIND_HEADERS = ("x-amzn-errortype", "x-amzn-error-type", "x-ms-error-code", "x-error-code", "x-error-type")
"""Headers that hold the code of an error."""

MAX_SEARCHED = 2048  # Characters; codes and words stand near the beginning.
MAX_FIELDS = 200


class Wording(NamedTuple):
    """The codes of an error, spelled as `plain_code` spells them, and its words in lower case."""

    codes: frozenset[str]
    text: str
    form: Form
    headers: Mapping[str, str] = {}

    @classmethod
    def of(cls, body: object, headers: Mapping[str, str] | None = None) -> Wording:
        """Read a body: text, or JSON that was decoded. `headers` have names in lower case.

        >>> found = Wording.of('{"error": {"type": "rate_limit_error", "message": "Slow down"}}')
        >>> sorted(found.codes), found.text, found.form
        (['ratelimit'], 'slow down', 'fields')
        """
        headers = headers or {}
        told = [plain_code(value) for value in codes_in_headers(headers)]
        fields = decoded(body)
        if fields is not None:
            codes, words = _of_fields(fields)
            return cls(frozenset([*told, *codes]), _lowered(words), "fields", headers)
        text = str(body)[:MAX_SEARCHED] if body is not None else ""
        start = text[:512].lower()
        if "<html" in start or "<!doctype html" in start:
            return cls(frozenset(told), _lowered([re.sub(r"<[^>]{0,500}>", " ", text)]), "page", headers)
        if "<?xml" in start or "<error" in start:
            codes = re.findall(r"<(?:\w+:)?(?:Code|Type|faultcode)>([^<]{1,100})<", text, re.IGNORECASE)
            words = re.findall(r"<(?:\w+:)?(?:Message|faultstring)>([^<]{1,2000})<", text, re.IGNORECASE)
            return cls(frozenset([*told, *map(plain_code, codes)]), _lowered(words), "fields", headers)
        # The text of an exception quotes the codes: "(ThrottlingException)", "'code': 'insufficient_quota'".
        codes = re.findall(r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+|[A-Z][A-Za-z]+(?:Exception|Error)\b", text)
        return cls(frozenset([*told, *map(plain_code, codes)]), _lowered([text]), "text", headers)


def plain_code(code: str) -> str:
    """Return a code as the table spells it, so that spellings of one code are one.

    >>> [plain_code(code) for code in ("invalid_api_key", "InvalidApiKey", "aws.coral#ThrottlingException")]
    ['invalidapikey', 'invalidapikey', 'throttling']
    """
    plain = re.sub(r"[\W_]+", "", code.rpartition("#")[2].lower())
    return re.sub(r"(?<=.)(exception|error|fault)$", "", plain)


def codes_in_headers(headers: Mapping[str, str]) -> list[str]:
    """Return the codes that headers tell: AWS's and Azure's kind of an error, and what a proxy says of itself.

    >>> codes_in_headers({"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/coral/"})
    ['ThrottlingException']
    """
    codes = [headers[name].partition(":")[0] for name in KIND_HEADERS if headers.get(name)]
    # RFC 9209: "ExampleCDN; error=connection_timeout"; RFC 6750: 'Bearer error="invalid_token"'.
    for name in ("proxy-status", "www-authenticate"):
        told = re.findall(r'\berror="?(\w{1,60})', headers.get(name, ""))
        # Of several proxies, one may have passed the request on.
        codes += told if len(told) == 1 else ["proxy_error"] * bool(told)
    return codes


def decoded(body: object) -> Mapping[str, object] | list[object] | None:
    """Return the fields of a JSON body, or of one that was decoded already; None if it has none."""
    if isinstance(body, str | bytes):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
    return cast("Mapping[str, object] | list[object]", body) if isinstance(body, Mapping | list) else None


def _of_fields(fields: object) -> tuple[list[str], list[str]]:
    """Collect codes and words from the fields that describe an error, at most `MAX_FIELDS` of them."""
    codes: list[str] = []
    words: list[str] = []
    left: list[tuple[str, object]] = [("", fields)]
    for name, value in left:
        if isinstance(value, Mapping | list):
            if len(left) <= MAX_FIELDS:
                left += _inside(name, cast("Mapping[object, object] | list[object]", value))
        elif isinstance(value, str):
            if name in WORD_FIELDS or not name:
                words.append(value)
                # A gateway passes on the whole body of the provider that it called.
                if value.lstrip()[:1] in {"{", "["} and (passed_on := decoded(value)) is not None:
                    left.append((name, passed_on))
            if name in CODE_FIELDS or (name in WORD_FIELDS and re.fullmatch(r"\S{1,64}", value)):
                codes.append(plain_code(value))
        elif isinstance(value, int) and name in CODE_FIELDS:
            codes.append(plain_code(str(value)))
    return codes, words


def _inside(name: str, value: Mapping[object, object] | list[object]) -> list[tuple[str, object]]:
    if isinstance(value, list):
        return [(name, inner) for inner in value[:20]]
    found: list[tuple[str, object]] = []
    for key, inner in value.items():
        field = _plain(str(key))
        if field in FURTHER_FIELDS or not isinstance(inner, Mapping | list):
            found.append((field, inner))
    return found[:MAX_FIELDS]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _lowered(words: list[str]) -> str:
    return " ".join(" ".join(words).split()).lower().replace("\u2019", "'")[:MAX_SEARCHED]
