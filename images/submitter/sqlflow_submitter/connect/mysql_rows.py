"""Reads rows of MySQL's text protocol in batches.

PyMySQL creates an object for each packet and makes a call for each value, so a million rows take many seconds. Here a
row costs two reads from a buffer and one slice for each value.
"""

from __future__ import annotations

from typing import Any

from pymysql.connections import MAX_PACKET_LEN
from pymysql.constants import CR
from pymysql.err import OperationalError
from pymysql.protocol import EOFPacketWrapper, MysqlPacket

from sqlflow_submitter.connect.database import BATCH_BYTES, BATCH_ROWS, FIRST_BATCH_ROWS, Batch

NULL = 251
EOF = 254


class RowReader:
    """Reads the rows of one result set. All must be read before the connection is used again."""

    def __init__(self, connection: Any, columns: int) -> None:
        self._connection = connection
        self._columns = columns
        self._limit = FIRST_BATCH_ROWS
        self._at_end = False
        self.more_results = False
        """Whether another result set follows; known after the last row."""

    def read_batch(self) -> Batch | None:
        """Returns the next rows, or None at the end.

        Raises:
            pymysql.MySQLError: the query failed, or the connection was lost.
        """
        try:
            return self._read_batch()
        except OSError as error:
            reason = error.strerror or str(error)
            raise OperationalError(
                CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query: {reason}"
            ) from error

    def _read_batch(self) -> Batch | None:
        flat: list[bytes | None] = []
        append = flat.append
        rows = size = 0
        read = self._connection._rfile.read
        sequence = self._connection._next_seq_id
        while not self._at_end and rows < self._limit and size < BATCH_BYTES:
            header = read(4)
            length = header[0] | header[1] << 8 | header[2] << 16 if len(header) == 4 else -1
            data = read(length) if 0 < length < MAX_PACKET_LEN else b""
            if len(data) != length or header[3] != sequence or data[0] >= EOF:
                self._connection._next_seq_id = sequence
                packet = self._read_other_packet(header, data)
                sequence = self._connection._next_seq_id
                if packet is None:
                    break
                data, length = packet, len(packet)
            else:
                sequence = (sequence + 1) & 0xFF
            place = 0
            while place < length:
                count = data[place]
                place += 1
                if count >= NULL:
                    if count == NULL:
                        append(None)
                        continue
                    width = (2, 3, 8)[count - 252]
                    count = int.from_bytes(data[place : place + width], "little")
                    place += width
                append(data[place : place + count])
                place += count
            rows += 1
            size += length
        self._connection._next_seq_id = sequence
        self._limit = BATCH_ROWS
        if not rows:
            return None
        return Batch(rows, [flat[column :: self._columns] for column in range(self._columns)])

    def _read_other_packet(self, header: bytes, data: bytes) -> bytes | None:
        """Handles packets other than short rows: returns a long row, returns None at the end, or raises an error."""
        packet = self._packet(header, data)
        if not packet.is_eof_packet():
            return bytes(packet.get_all_data())
        self._at_end = True
        self.more_results = bool(EOFPacketWrapper(packet).has_next)
        return None

    def _packet(self, header: bytes, data: bytes) -> MysqlPacket:
        """Lets PyMySQL parse a packet whose beginning was already read."""
        connection = self._connection
        source = connection._rfile
        connection._rfile = _Pushback(header + data, source)
        try:
            return connection._read_packet()
        finally:
            if connection._rfile is not None:
                connection._rfile = source


class _Pushback:
    """A reader that returns bytes that were already read, and then reads from the source."""

    def __init__(self, taken: bytes, source: Any) -> None:
        self._taken = taken
        self._source = source

    def read(self, size: int) -> bytes:
        first, self._taken = self._taken[:size], self._taken[size:]
        return first + self._source.read(size - len(first)) if len(first) < size else first

    def close(self) -> None:
        self._source.close()
