"""The wire format of Protocol Buffers, as far as the submitter channel needs it.

The package `google.protobuf` would take longer to import than Python itself takes to start.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""
ONE_BYTE = [bytes([value]) for value in range(0x80)]


def varint(value: int) -> bytes:
    """Encodes an integer. A negative one is encoded as its two's complement in 64 bits."""
    if 0 <= value <= 0x7F:
        return ONE_BYTE[value]
    if value < 0:
        value += 1 << 64
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


# The fields of proto3. `optional` fields and those of a oneof are present even if they hold the default value.


def present_integer(field: int, value: int) -> bytes:
    return tag(field, VARINT) + varint(value)


def optional_integer(field: int, value: int | None) -> bytes:
    return b"" if value is None else present_integer(field, value)


def integer(field: int, value: int) -> bytes:
    return present_integer(field, value) if value else b""


def present_double(field: int, value: float) -> bytes:
    return tag(field, FIXED64) + struct.pack("<d", value)


def double(field: int, value: float) -> bytes:
    # Minus zero is not the default value.
    encoded = present_double(field, value)
    return b"" if encoded.endswith(bytes(8)) else encoded


def message(field: int, parts: list[bytes]) -> list[bytes]:
    """A message in parts. Rows are large, so all parts of a frame are joined at once."""
    return [tag(field, BYTES) + varint(sum(map(len, parts))), *parts]


def present_bytes(field: int, value: bytes) -> bytes:
    return tag(field, BYTES) + varint(len(value)) + value


def blob(field: int, value: bytes) -> bytes:
    return present_bytes(field, value) if value else b""


def present_text(field: int, value: str) -> bytes:
    # A path that is not UTF-8 has lone surrogates, and may be part of an error message.
    return present_bytes(field, value.encode("utf-8", "backslashreplace"))


def text(field: int, value: str) -> bytes:
    return present_text(field, value) if value else b""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the fields of a message, except those of a fixed size, with their values.

    Raises:
        ValueError: the message is malformed.
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, at = _read_varint(message, at)
            yield field, value
            continue
        if wire_type == BYTES:
            size, at = _read_varint(message, at)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise ValueError(f"field {field} has wire type {wire_type}")
        end = at + size
        if end > len(message):
            raise ValueError(f"field {field} ends after its message")
        if wire_type == BYTES:
            yield field, message[at:end]
        at = end


def last_integer(message: bytes, field: int) -> int:
    found = [value for number, value in fields(message) if number == field and isinstance(value, int)]
    return found[-1] if found else 0


def last_text(message: bytes, field: int) -> str:
    found = byte_strings(message, field)
    return found[-1].decode() if found else ""


def byte_strings(message: bytes, field: int) -> list[bytes]:
    return [value for number, value in fields(message) if number == field and isinstance(value, bytes)]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the integer at a place of the data, and the place after it."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("an integer does not end")
