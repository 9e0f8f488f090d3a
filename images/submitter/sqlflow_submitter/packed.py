"""Encodes columns of values as repeated fields of Protocol Buffers.

A column may have millions of values, so the work for each value is done in C. For varints, a block of values is one
integer of many 64-bit lanes, and each operation changes all lanes at once.
"""

from __future__ import annotations

import sys
from array import array

from sqlflow_submitter import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK = 512
"""Values in a block. Larger integers would not stay in the processor's cache."""
LANE = 8
"""Bytes of a lane."""


def strings(field: int, values: Sequence[str]) -> bytes:
    """Encodes a repeated field of texts.

    Raises:
        UnicodeEncodeError: a text has lone surrogates.
    """
    joined = "".join(values)
    if not joined.isascii():
        return blobs(field, [value.encode() for value in values])
    sizes = list(map(len, values))
    # Latin-1 has each byte at its own code point, so the tags and sizes can be joined with the texts.
    heads = {size: _head(field, size).decode("latin-1") for size in set(sizes)}
    parts = [""] * (2 * len(sizes))
    parts[::2] = [heads[size] for size in sizes]
    parts[1::2] = values
    return "".join(parts).encode("latin-1")


def blobs(field: int, values: Sequence[bytes]) -> bytes:
    """Encodes a repeated field of byte strings or encoded messages."""
    sizes = list(map(len, values))
    heads = {size: _head(field, size) for size in set(sizes)}
    parts = [b""] * (2 * len(sizes))
    parts[::2] = [heads[size] for size in sizes]
    parts[1::2] = values
    return b"".join(parts)


def _head(field: int, size: int) -> bytes:
    return wire.tag(field, wire.BYTES) + wire.varint(size)


def doubles(values: Sequence[float]) -> bytes:
    """Encodes numbers of 64 bits without tags, for a packed field."""
    return _little_endian(array("d", values))


def varints(numbers: array[int], zigzag: bool = False) -> bytes:
    """Encodes an array of type `q` or `Q` without tags, for a packed field.

    `zigzag`: the field's type is `sint32` or `sint64`. Otherwise negative numbers are two's complements.
    """
    data = _little_endian(numbers)
    return b"".join([_block(data[at : at + BLOCK * LANE], zigzag) for at in range(0, len(data), BLOCK * LANE)])


def _little_endian(numbers: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _lanes(lane: int) -> int:
    """Returns an integer with the same 64 bits in every lane."""
    return int.from_bytes(lane.to_bytes(LANE, "little") * BLOCK, "little")


ONE = _lanes(1)
EVEN = _lanes(0xFFFFFFFFFFFFFFFE)
LOW_8_BITS = _lanes(0xFF)
LOW_56_BITS = _lanes(0x00FFFFFFFFFFFFFF)
ABOVE_7_BITS = _lanes(0xFFFFFFFFFFFFFF80)
ABOVE_55_BITS = _lanes(0xFF80000000000000)
GROUPS = _lanes(0x7F7F7F7F7F7F7F7F)
SPREAD = [
    (_lanes(0x000000000FFFFFFF), _lanes(0x00FFFFFFF0000000), 4),
    (_lanes(0x00003FFF00003FFF), _lanes(0x0FFFC0000FFFC000), 2),
    (_lanes(0x007F007F007F007F), _lanes(0x3F803F803F803F80), 1),
]
"""Masks of what stays and what moves, and how far, until 56 bits are eight groups of 7 bits, one in each byte."""
ALL_FLAGS = 0x8080808080808080
"""Bit 7 of each byte: the varint goes on."""
FLAGS = _lanes(ALL_FLAGS)
FLAGS_1, FLAGS_4, FLAGS_6, FLAGS_7 = (_lanes((1 << 8 * n) - 1 & ALL_FLAGS) for n in (1, 4, 6, 7))
"""Bit 7 of the lowest bytes of each lane."""
NINTH = bytes([high & 0x7F | (0x80 if high > 0x7F else 0) for high in range(256)])
TENTH = bytes([high >> 7 for high in range(256)])
"""The last bytes of a varint by the high 8 bits of its value."""
ZERO = b"\xff" * 7 + b"\x7f"
"""The varint of 2**56 - 1, and the end of longer ones. It stands for 0 until the bytes that are 0 are removed."""


def _block(data: bytes, zigzag: bool) -> bytes:
    """Encodes a block of 64-bit integers."""
    lanes = int.from_bytes(data, "little")
    size = len(data)
    if zigzag:
        lanes = (lanes << 1 & EVEN) ^ (lanes >> 63 & ONE) * 0xFFFFFFFFFFFFFFFF
        data = lanes.to_bytes(size, "little")
    if not lanes & ABOVE_7_BITS:
        return data[::LANE]
    high, has_high = b"", 0
    if lanes & ABOVE_55_BITS:
        high = data[LANE - 1 :: LANE]
        has_high = ((lanes >> 56 & LOW_8_BITS) + LOW_8_BITS >> 8 & ONE) * ALL_FLAGS
        lanes &= LOW_56_BITS
    for stays, moves, distance in SPREAD:
        lanes = lanes & stays | (lanes & moves) << distance
    # The flag of a byte: it or a higher byte of the value is not 0.
    flags = lanes + GROUPS & FLAGS
    flags |= flags >> 8 & FLAGS_7
    flags |= flags >> 16 & FLAGS_6
    flags |= flags >> 32 & FLAGS_4
    lanes |= flags >> 8 & FLAGS_7 | has_high
    # Bytes that are 0 belong to no varint, except that of the value 0.
    first = FLAGS_1 if size == BLOCK * LANE else FLAGS_1 & (1 << 8 * size) - 1
    zeros = (flags | has_high) & first ^ first
    lanes |= (zeros >> 7) * int.from_bytes(ZERO, "little")
    encoded = lanes.to_bytes(size, "little")
    if high:
        longest = bytearray(len(high) * 10)
        for place in range(LANE):
            longest[place::10] = encoded[place::LANE]
        longest[8::10] = high.translate(NINTH)
        longest[9::10] = high.translate(TENTH)
        encoded = bytes(longest)
    encoded = encoded.translate(None, b"\0")
    if zeros and high and encoded.count(ZERO) != zeros.bit_count():
        # A value has these bytes, too.
        return b"".join([wire.varint(int.from_bytes(data[at : at + LANE], "little")) for at in range(0, size, LANE)])
    return encoded.replace(ZERO, b"\0") if zeros else encoded
