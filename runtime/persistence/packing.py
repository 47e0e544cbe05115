"""Values as they lie on disk: compressed if that makes them smaller, and encrypted by what the program gives for it."""

from __future__ import annotations

import zlib
from typing import Protocol

import msgspec

MIN_COMPRESSED = 1_000
"""The bytes from which on a value is compressed; of less there is little to gain."""
LEVEL = 1
"""Of zlib's levels the quickest: the others take three to eight times as long for a tenth less (zlib's manual)."""
COMPRESSED, ENCRYPTED = 1, 2
"""What was done to a value: the bits of its first byte."""


class Cipher(Protocol):
    """Encrypts values and decrypts them; `decrypt` raises if it has another key. `cryptography.fernet.Fernet` is one.

    Both may be called in a thread.
    """

    def encrypt(self, content: bytes, /) -> bytes: ...
    def decrypt(self, content: bytes, /) -> bytes: ...


class UnreadableValue(Exception):
    """A value cannot be read back: it is encrypted with another key, or damaged."""


class Packing(msgspec.Struct, frozen=True, kw_only=True):
    """How values are packed, and unpacked again however they were packed before.

    >>> packed = Packing(compresses=True).pack(b"a long answer " * 1_000)
    >>> len(packed) < 200, len(Packing().unpack(packed))
    (True, 14000)
    """

    compresses: bool = False
    cipher: Cipher | None = None

    @property
    def takes_time(self) -> bool:
        """Whether packing is more than copying."""
        return self.compresses or self.cipher is not None

    def pack(self, content: bytes) -> bytes:
        """Return a value as it is to be written; raises what the cipher does."""
        form = 0
        if self.compresses and len(content) >= MIN_COMPRESSED:
            smaller = zlib.compress(content, LEVEL)
            if len(smaller) < len(content):
                form, content = COMPRESSED, smaller
        if self.cipher is not None:
            form, content = form | ENCRYPTED, self.cipher.encrypt(content)
        return bytes((form,)) + content

    def unpack(self, packed: bytes) -> bytes:
        """Return a value that was packed; raises `UnreadableValue`, which tells why, if it cannot be."""
        form, content = packed[:1], packed[1:]
        if form not in {b"\0", b"\1", b"\2", b"\3"}:
            raise UnreadableValue("it is damaged")
        if form[0] & ENCRYPTED:
            if self.cipher is None:
                raise UnreadableValue(
                    "it is encrypted, and there is no cipher to decrypt it; give the one it was written with"
                )
            try:
                content = self.cipher.decrypt(content)
            except Exception as error:
                raise UnreadableValue(
                    f"it cannot be decrypted ({error!r}); give the cipher, with the key, that it was written with"
                ) from error
        if form[0] & COMPRESSED:
            try:
                content = zlib.decompress(content)
            except zlib.error as error:
                raise UnreadableValue(f"it is damaged ({error})") from error
        return content
