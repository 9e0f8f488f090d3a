"""The frames of the submitter channel: what the submitter sends, and what it receives from its agent.

The documentation of messages and fields is in `proto/sqlflow/agent/v1/channel.proto`. Rows are in `rows.py`. The same
bytes as in `proto/tests/submitter_channel.json` are encoded and decoded here and in Rust.
"""

from __future__ import annotations

from sqlflow_submitter import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Value = str | int | float
"""The value of an attribute."""


class Content:
    """The content of a frame to the agent."""

    FIELD: int
    """Number of its field in SubmitterFrame."""

    def encode(self) -> list[bytes]:
        """Returns the encoded message, in parts."""
        return []


class Frame:
    """A frame to the agent; `statement` is None if it is about no single statement."""

    def __init__(self, content: Content, statement: int | None = None) -> None:
        self.content = content
        self.statement = statement
        self.ack_id = 0

    def encode(self) -> list[bytes]:
        return [
            wire.optional_integer(1, self.statement),
            wire.integer(2, self.ack_id),
            *wire.message(self.content.FIELD, self.content.encode()),
        ]


class Started(Content):
    FIELD = 3


class Head(Content):
    """The columns of a result set."""

    FIELD = 4

    def __init__(self, names: Sequence[str], types: Sequence[str]) -> None:
        self.names = names
        self.types = types

    def encode(self) -> list[bytes]:
        names = [wire.present_text(1, name) for name in self.names]
        types = [wire.present_bytes(2, wire.text(1, database_type)) for database_type in self.types]
        return [*names, *types]


class Ended(Content):
    FIELD = 6

    def __init__(self, duration_micros: int, rows_affected: int | None) -> None:
        self.duration_micros = duration_micros
        self.rows_affected = rows_affected

    def encode(self) -> list[bytes]:
        return [wire.integer(1, self.duration_micros), wire.optional_integer(2, self.rows_affected)]


class Progress(Content):
    FIELD = 7

    def __init__(self, phase: str, done: int, total: int, unit: str) -> None:
        self.phase = phase
        self.done = done
        self.total = total
        self.unit = unit

    def encode(self) -> list[bytes]:
        return [
            wire.text(1, self.phase),
            wire.integer(2, self.done),
            wire.integer(3, self.total),
            wire.text(4, self.unit),
        ]


class Metrics(Content):
    """Metrics of one round, or final ones if `step` is None."""

    FIELD = 8

    def __init__(self, values: Mapping[str, float], step: int | None = None, kept: bool = False) -> None:
        self.values = values
        self.step = step
        self.kept = kept

    def encode(self) -> list[bytes]:
        metrics = [
            wire.present_bytes(2, wire.text(1, name) + wire.double(2, value)) for name, value in self.values.items()
        ]
        return [wire.optional_integer(1, self.step), *metrics, wire.integer(3, self.kept)]


class EncodedRows(Content):
    """Rows of a database, as an encoded Rows message in parts."""

    FIELD = 5

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def encode(self) -> list[bytes]:
        return self.parts


class Display(Content):
    FIELD = 9

    def __init__(self, media_type: str, data: bytes) -> None:
        self.media_type = media_type
        self.data = data

    def encode(self) -> list[bytes]:
        return [wire.text(1, self.media_type), wire.blob(2, self.data)]


class Failure(Content):
    FIELD = 10

    def __init__(self, message: str) -> None:
        self.message = message
        self.detail = ""
        self.user_error = False
        self.transient = False
        self.unclear = False
        self.not_executed = False
        self.unprinted = False
        self.peer_lost = False
        """The failure is the consequence of the data process's end."""

    def encode(self) -> list[bytes]:
        return [
            wire.text(1, self.message),
            wire.text(2, self.detail),
            wire.integer(3, self.user_error),
            wire.integer(4, self.transient),
            wire.integer(5, self.unclear),
            wire.integer(6, self.not_executed),
            wire.integer(7, self.unprinted),
            wire.integer(8, self.peer_lost),
        ]


class Commit(Content):
    """The request to make the statement's effect visible."""

    FIELD = 11


class Span(Content):
    FIELD = 12

    def __init__(self, number: int, parent: int, name: str, begin_unix_micros: int) -> None:
        self.number = number
        """Its id within the statement."""
        self.parent = parent
        self.name = name
        self.begin_unix_micros = begin_unix_micros
        self.end_unix_micros = 0
        self.attributes: dict[str, Value] = {}
        self.events: list[Event] = []
        self.error = ""

    def encode(self) -> list[bytes]:
        return [
            wire.integer(1, self.number),
            wire.integer(2, self.parent),
            wire.text(3, self.name),
            wire.integer(4, self.begin_unix_micros),
            wire.integer(5, self.end_unix_micros),
            *_attributes(6, self.attributes),
            *[wire.present_bytes(7, event.encode()) for event in self.events],
            wire.text(8, self.error),
        ]


class Event:
    """An event of a span."""

    def __init__(self, name: str, time_unix_micros: int, attributes: Mapping[str, Value]) -> None:
        self.name = name
        self.time_unix_micros = time_unix_micros
        self.attributes = attributes

    def encode(self) -> bytes:
        name, time = wire.text(1, self.name), wire.integer(2, self.time_unix_micros)
        return b"".join([name, time, *_attributes(3, self.attributes)])


def _attributes(field: int, attributes: Mapping[str, Value]) -> list[bytes]:
    return [wire.present_bytes(field, wire.text(1, key) + _attribute(value)) for key, value in attributes.items()]


def _attribute(value: Value) -> bytes:
    match value:
        case str():
            return wire.present_text(2, value)
        case int():
            return wire.present_integer(3, value)
        case _:
            return wire.present_double(4, value)


class Start:
    """The first frame from the agent."""

    def __init__(self, secrets: dict[str, str], agent_version: str) -> None:
        self.secrets = secrets
        """Only a data process has some."""
        self.agent_version = agent_version


class Ack:
    """The frame with this number is durable."""

    def __init__(self, ack_id: int) -> None:
        self.ack_id = ack_id


class Refused:
    """This attempt must not go on."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Granted:
    """The statement's effect may become visible."""


class CommandEnded:
    """The submitter beside this data process has ended with 0."""


Reply = Start | Ack | Granted | Refused | CommandEnded


def decode(frame: bytes) -> Reply | None:
    """Decodes a frame from the agent. Returns None for a kind that this version does not know.

    Raises:
        ValueError: the frame is malformed.
    """
    content: Reply | None = None
    # Of a oneof, the last field counts.
    for field, value in wire.fields(frame):
        match field, value:
            case 1, bytes():
                content = Start(_texts(wire.byte_strings(value, 1)), wire.last_text(value, 2))
            case 2, bytes():
                content = Ack(wire.last_integer(value, 1))
            case 3, bytes():
                content = Granted()
            case 4, bytes():
                content = Refused(wire.last_text(value, 1))
            case 6, bytes():
                content = CommandEnded()
            case _:
                pass
    return content


def _texts(entries: list[bytes]) -> dict[str, str]:
    """Decodes a map of texts."""
    return {wire.last_text(entry, 1): wire.last_text(entry, 2) for entry in entries}
