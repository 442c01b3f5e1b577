"""Protocol buffers' wire format, as far as writing needs it (protobuf.dev/programming-guides/encoding).

A message is its fields one after the other; a field is its number and kind, then a varint, or a length and bytes.
Numbers are not negative here.
"""

from __future__ import annotations

from collections.abc import Iterable

VARINT, LENGTH = 0, 2  # kinds of fields
MORE = 0x80  # set in every byte of a varint but the last


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first."""
    found = bytearray()
    while number >= MORE:
        found.append(number & (MORE - 1) | MORE)
        number >>= 7
    found.append(number)
    return bytes(found)


def integer(field: int, number: int) -> bytes:
    """A field of bool, int32, int64, uint32, uint64 or an enum."""
    return varint(field << 3 | VARINT) + varint(number)


def lengthy(field: int, content: bytes) -> bytes:
    """A field of bytes, or of another message."""
    return varint(field << 3 | LENGTH) + varint(len(content)) + content


def text(field: int, words: str) -> bytes:
    """A field of a string."""
    return lengthy(field, words.encode())


def packed(field: int, numbers: Iterable[int]) -> bytes:
    """A repeated field of integers; nothing where there are none."""
    content = b"".join(map(varint, numbers))
    return lengthy(field, content) if content else b""


def delimited(message: bytes) -> bytes:
    """A message of a stream of them: its length first."""
    return varint(len(message)) + message
