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
    """Returns an integer with the same 64 bits in every lane. A wide block has two lanes for each value."""
    return int.from_bytes(lane.to_bytes(LANE, "little") * (2 * BLOCK), "little")


ONE = _lanes(1)
EVEN = _lanes(0xFFFFFFFFFFFFFFFE)
ABOVE_7_BITS = _lanes(0xFFFFFFFFFFFFFF80)
ABOVE_55_BITS = _lanes(0xFF80000000000000)
LOW_56_BITS = _lanes(0x00FFFFFFFFFFFFFF)
HIGH_8_BITS = _lanes(0xFF00000000000000)
GROUPS = _lanes(0x7F7F7F7F7F7F7F7F)
SPREAD = [
    (_lanes(0x000000000FFFFFFF), _lanes(0x00FFFFFFF0000000), 4),
    (_lanes(0x00003FFF00003FFF), _lanes(0x0FFFC0000FFFC000), 2),
    (_lanes(0x007F007F007F007F), _lanes(0x3F803F803F803F80), 1),
]
"""Masks of what stays and what moves, and how far, until 56 bits are eight groups of 7 bits, one in each byte."""
FLAGS = _lanes(0x8080808080808080)
"""Bit 7 of each byte."""
FLAGS_1, FLAGS_4, FLAGS_6, FLAGS_7 = (_lanes((1 << 8 * n) - 1 & 0x8080808080808080) for n in (1, 4, 6, 7))
"""Bit 7 of the lowest bytes of each lane."""
WIDE_FLAGS_1 = int.from_bytes((b"\x80" + bytes(15)) * BLOCK, "little")
WIDE_MORE = int.from_bytes((b"\x80" * 15 + b"\0") * BLOCK, "little")
ZERO = b"\xff" * 7 + b"\x7f"
WIDE_ZERO = b"\x80" * 9 + b"\x7f"
"""Varints that stand for 0 until the bytes that are 0 are removed. No value of a block has them."""


def _block(data: bytes, zigzag: bool) -> bytes:
    """Encodes a block of 64-bit integers."""
    lanes = int.from_bytes(data, "little")
    size = len(data)
    if zigzag:
        lanes = (lanes << 1 & EVEN) ^ (lanes >> 63 & ONE) * 0xFFFFFFFFFFFFFFFF
    if not lanes & ABOVE_7_BITS:
        return lanes.to_bytes(size, "little")[::LANE]
    is_wide = lanes & ABOVE_55_BITS != 0
    if is_wide:
        # The even lane of a value has 56 bits of it, and the odd lane the other 8.
        pairs = array("Q", bytes(2 * size))
        pairs[::2] = array("Q", lanes.to_bytes(size, "little"))
        lanes, size = int.from_bytes(pairs.tobytes(), "little"), 2 * size
        lanes = lanes & LOW_56_BITS | (lanes & HIGH_8_BITS) << 8
    for stays, moves, distance in SPREAD:
        lanes = lanes & stays | (lanes & moves) << distance
    # The flag of a byte: it or a higher byte of the value is not 0.
    flags = lanes + GROUPS & FLAGS
    flags |= flags >> 8 & FLAGS_7
    flags |= flags >> 16 & FLAGS_6
    flags |= flags >> 32 & FLAGS_4
    if is_wide:
        flags |= (flags >> 64 & WIDE_FLAGS_1) * 0x0101010101010101
    lanes |= flags >> 8 & (WIDE_MORE if is_wide else FLAGS_7)
    # Bytes that are 0 belong to no varint, except that of the value 0.
    first, mark = (WIDE_FLAGS_1, WIDE_ZERO) if is_wide else (FLAGS_1, ZERO)
    zeros = (flags ^ first) & first & (1 << 8 * size) - 1
    if zeros:
        lanes |= (zeros >> 7) * int.from_bytes(mark, "little")
    encoded = lanes.to_bytes(size, "little").translate(None, b"\0")
    return encoded.replace(mark, b"\0") if zeros else encoded
