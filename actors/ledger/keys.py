"""Under which key the ledger keeps a request, and which key its providers are told.

A caller's key holds in a scope, so that two tenants that use one text have two keys. Pure.
"""

from __future__ import annotations

import re
from hashlib import blake2b

OWN_ID = "r-"
"""How the identities begin that are made up for requests; 32 hexadecimal digits follow, drawn at random."""
OWN_ID_LENGTH = len(OWN_ID) + 32
UNNAMED_ACCOUNT = "unnamed account "
"""How the names begin that are made up for accounts, and are no scope: they are others in each run."""
SCOPE = re.compile(r"""((?:tenant|account) (?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")) """, re.DOTALL)
"""A scope, which is quoted as Python does, and the space behind it."""
PURCHASE = re.compile(r"purchase (\d+) of (.*)", re.DOTALL)
SCOPES = ("tenant ", "account ", "key ", "purchase ")
"""How a key begins that is kept with what it belongs to."""


def scoped_key(key: str, *, tenant: str | None = None, account: str | None = None) -> str:
    """Return under which key the ledger keeps a request: that of its tenant, else of its account, else its own text.

    It is what `GetHeld` lists. Two scopes never have a key in common, whatever text is used as a key: be it the
    identity of another's request.

    >>> scoped_key("order 17"), scoped_key("order 17", tenant="acme", account="a"), scoped_key("order 17", account="a")
    ('order 17', "tenant 'acme' order 17", "account 'a' order 17")
    >>> scoped_key("tenant 'acme' order 17")
    "key tenant 'acme' order 17"
    """
    if tenant is not None:
        return f"tenant {tenant!r} {key}"  # Where a quoted text ends can be told, so no other pair gives this.
    if account is not None and not account.startswith(UNNAMED_ACCOUNT):
        return f"account {account!r} {key}"
    return f"key {key}" if key.startswith(SCOPES) else key


def scope_of(scoped: str) -> str:
    """Return the scope of a key as the ledger has it; "" for that of the ledger itself.

    >>> scope_of(scoped_key("order 17", tenant="acme")), scope_of("order 17")
    ("tenant 'acme'", '')
    """
    found = SCOPE.match(scoped)
    return "" if found is None else found.group(1)


def purchase_key(scoped: str, number: int) -> str:
    """Return under which key the ledger keeps the second purchase of a request, and those after it.

    >>> purchase_key("order 17", 1), purchase_key("order 17", 2)
    ('order 17', 'purchase 2 of order 17')
    """
    return scoped if number == 1 else f"purchase {number} of {scoped}"


def purchase_of(paid_as: str) -> tuple[str, int]:
    """Return the key of a request and the number of its purchase, of which `purchase_key` made one.

    >>> purchase_of("order 17"), purchase_of(purchase_key("order 17", 2))
    (('order 17', 1), ('order 17', 2))
    """
    found = PURCHASE.fullmatch(paid_as)
    return (paid_as, 1) if found is None else (found.group(2), int(found.group(1)))


def provider_key(scoped: str) -> str:
    """Return the idempotency key that providers are told: a digest of a caller's key and its scope.

    It is the same in each run, so that a call can be repeated and looked up by it. An identity that was made up for a
    request, and that no scope holds, is told as it is.

    >>> provider_key("order 17")
    'dec6c7155684942e942de88a5662051d'
    """
    return scoped if is_own_id(scoped) else blake2b(scoped.encode(), digest_size=16, person=b"provider key").hexdigest()


def own_id(bits: int) -> str:
    """Return the identity that is made up for a request of 128 bits drawn at random.

    >>> own_id(255)
    'r-000000000000000000000000000000ff'
    """
    return f"{OWN_ID}{bits:032x}"


def is_made_up(scoped: str) -> bool:
    """Tell whether a key as the ledger has it may be the identity that was made up for a request without a key.

    >>> [is_made_up(scoped_key(key, tenant="acme")) for key in (own_id(7), "order 17", f"order {own_id(7)}")]
    [True, False, False]
    """
    if not is_own_id(scoped[-OWN_ID_LENGTH:]):
        return False
    scope = SCOPE.match(scoped)
    return len(scoped) == OWN_ID_LENGTH + (0 if scope is None else scope.end())


def is_own_id(key: str) -> bool:
    """Tell whether a key is such as are made up for requests."""
    return len(key) == OWN_ID_LENGTH and key.startswith(OWN_ID)
