"""The errors inside an error: what it was raised from, what a group holds, and what a wrapper of retries keeps.

An exception is foreign code. Whatever it does when it is looked at, looking at it here never raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ERRORS = 200
"""Errors that are looked at inside one; a chain is seldom longer than ten."""
MAX_TEXT = 4096
"""Characters of an error's text that are kept."""
HOLDERS = ("reason", "original_error", "cause", "original_exception", "last_exception")
"""Attributes in which clients keep the error that theirs stands for: urllib, urllib3, google.api_core, and others."""
TRANSLATORS = frozenset({"botocore", "litellm", "requests", "urllib", "urllib3"})
"""Packages that raise their own error while they handle the one that it stands for, without `from`."""


class ErrorNode:
    """An error, and the errors that it stands for."""

    __slots__ = ("error", "inner", "is_group")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.inner: list[ErrorNode] = []
        self.is_group = issubclass(type(error), BaseExceptionGroup)

    def walk(self) -> Iterator[ErrorNode]:
        """Yield this node and all below it, the outer ones first."""
        yield self
        for node in self.inner:
            yield from node.walk()


def tree_of(error: BaseException, *, until: BaseException | None = None) -> ErrorNode:
    """Return an error with the errors that it stands for, each of them once, without `until`."""
    root = ErrorNode(error)
    seen = {id(error), id(until)}
    unread = [root]
    while unread:
        node = unread.pop()
        for one in _inner_errors(node.error):
            if id(one) not in seen and len(seen) < MAX_ERRORS:
                seen.add(id(one))
                child = ErrorNode(one)
                node.inner.append(child)
                unread.append(child)
    return root


def _inner_errors(error: BaseException) -> list[BaseException]:
    """Return the errors that `error` says it stands for, from the most certain source that names any."""
    if issubclass(type(error), BaseExceptionGroup):
        return _errors_in(attribute(error, "exceptions"))
    if found := _errors_in((attribute(error, "__cause__"),)):
        return found
    if found := _errors_in(_last_attempt_of(error)):
        return found
    kept = attribute(error, "kwargs")  # As botocore keeps it.
    held = [attribute(error, name) for name in HOLDERS]
    held.append(quiet(lambda: cast("Any", kept).get("error")) if isinstance(kept, dict) else None)
    if found := _errors_in(held) or _errors_in(attribute(error, "args")):
        return found
    if root_of(type(error)) in TRANSLATORS and attribute(error, "__suppress_context__") is False:
        return _errors_in((attribute(error, "__context__"),))
    return []


def _errors_in(values: object) -> list[BaseException]:
    some = (
        quiet(lambda: list(cast("tuple[object, ...]", values))[:MAX_ERRORS]) if isinstance(values, tuple | list) else ()
    )
    return [
        value
        for value in cast("list[object]", some or [])
        if issubclass(type(value), BaseException) and isinstance(value, BaseException)
    ]


def _last_attempt_of(error: BaseException) -> tuple[object, ...]:
    """Return the error of the last try that a wrapper of retries keeps as a future, such as `tenacity.RetryError`."""
    attempt = attribute(error, "last_attempt")
    if attempt is None or quiet(lambda: cast("Any", attempt).done()) is not True:
        return ()
    return (quiet(lambda: cast("Any", attempt).exception(timeout=0)),)


def contexts_of(error: BaseException, *, until: BaseException | None = None) -> Iterator[BaseException]:
    """Yield the errors that were being handled when `error` was raised, latest first, up to `until`."""
    seen = {id(error)}
    context = attribute(error, "__context__")
    while issubclass(type(context), BaseException) and isinstance(context, BaseException):
        if context is until or id(context) in seen or len(seen) > MAX_ERRORS:
            return
        seen.add(id(context))
        yield context
        context = attribute(context, "__context__")


def attribute(holder: object, name: str) -> object:
    """Return an attribute, or None if there is none, or if reading it raises."""
    return sound(quiet(lambda: getattr(holder, name, None)))


def sound(value: object) -> object:
    """Return a value that `isinstance` can be asked about: an exact str of a subclass, None of a hostile one."""
    if issubclass(type(value), str):
        return str.__getitem__(cast("str", value), slice(None))
    return None if quiet(lambda: value.__class__) is None else value


def quiet(read: Any) -> object:
    """Return what `read` returns, or None if it raises, whatever that is."""
    try:
        return read()
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - an attribute of a foreign object can raise anything, forged cancellations too.
        return None


def text_of(error: BaseException) -> str:
    """Return the name of an error's class and its text, of which at most 4,096 characters; raises nothing.

    >>> text_of(TimeoutError("30 s")), text_of(TimeoutError())
    ('TimeoutError: 30 s', 'TimeoutError')
    """
    name = name_of(type(error))
    text = quiet(lambda: str(error))
    if not isinstance(text, str):
        return f"{name} (its text cannot be read)"
    # Exact, because a subclass of str may do anything; and without the halves of characters, which cannot be written.
    text = str.__getitem__(text, slice(0, MAX_TEXT)).encode(errors="backslashreplace").decode()
    return f"{name}: {text}" if text else name


def name_of(kind: type) -> str:
    """Return the name of a class, whatever its metaclass makes of that."""
    name = type.__dict__["__name__"].__get__(kind)
    return name if isinstance(name, str) else "Exception"


def lineage(kind: type) -> list[str]:
    """Return the names of a class and its bases, each with the package that it is from.

    >>> lineage(ConnectionRefusedError)[:2]
    ['builtins.ConnectionRefusedError', 'builtins.ConnectionError']
    """
    bases: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return [f"{root_of(base)}.{name_of(base)}" for base in bases]


def root_of(kind: type) -> str:
    """Return the name of the package that a class is from."""
    module = attribute(kind, "__module__")
    return str.partition(module, ".")[0] if isinstance(module, str) else ""
