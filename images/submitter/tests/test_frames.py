"""The encoder and decoder of frames, against bytes that Rust is tested with too, and against Google's package."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from agent import PACKAGE
from google.protobuf import json_format
from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, SubmitterFrame
from protos.sqlflow.v1.data_pb2 import Column

from sqlflow_submitter import packed, wire
from sqlflow_submitter.connect.database import Kind, Values
from sqlflow_submitter.frames import (
    Ack,
    Commit,
    Display,
    Ended,
    Event,
    Failure,
    Frame,
    Granted,
    Head,
    Metrics,
    Progress,
    Refused,
    Span,
    Start,
    Started,
    decode,
)
from sqlflow_submitter.rows import ENCODERS, ZEROS, Rows, encode_column

GOLDEN = PACKAGE.parent.parent / "proto" / "tests" / "submitter_channel.json"
CASES = {case["name"]: case for case in json.loads(GOLDEN.read_text())}


def durable(frame: Frame, ack_id: int) -> Frame:
    frame.ack_id = ack_id
    return frame


def failure(message: str, detail: str, *flags: str) -> Failure:
    made = Failure(message)
    made.detail = detail
    for flag in flags:
        assert getattr(made, flag) is False
        setattr(made, flag, True)
    return made


def span() -> Span:
    made = Span(2, 1, "train", 1_700_000_000_000_001)
    made.end_unix_micros = 1_700_000_000_000_300
    made.attributes = {"sqlflow.rows": 150, "nothing": 0, "library": "xgboost", "empty": ""}
    made.events = [
        Event("round", 1_700_000_000_000_200, {"sqlflow.round": 1, "loss": 0.5, "zero": 0.0}),
        Event("end", 1_700_000_000_000_250, {}),
    ]
    made.error = "UserError"
    return made


SENT = {
    "started": Frame(Started(), 0),
    "started, durable": durable(Frame(Started(), 300), 2**40),
    "head": Frame(Head(["id", "größe", "id"], ["INTEGER", "", "DECIMAL(10,2)"]), 1),
    "head without columns": Frame(Head([], []), 1),
    "rows of every kind": Frame(
        Rows(
            3,
            [
                Values(Kind.BOOL, [True, False, True]),
                Values(Kind.INT, [0, -(2**63), 2**63 - 1]),
                Values(Kind.INT, [2**64 - 1, 0, 127]),
                Values(Kind.INT, [2**64, -1, 0]),
                Values(Kind.FLOAT, [0.5, float("-inf"), -0.0]),
                Values(Kind.TEXT, ["", "a\0ä😀", "x" * 130]),
                Values(Kind.BLOB, [b"\xff\x00", b"", b"a"]),
                Values(Kind.DECIMAL, ["-12.50", "0", "1e9"]),
                Values(Kind.DATE, [-1, 0, 2932896]),
                Values(Kind.TIMESTAMP, [-1, 1_700_000_000_000_000, 0]),
                Values(Kind.TIMESTAMP_UTC, [0, -62_135_596_800_000_000, 1]),
                Values(Kind.MIXED, [None, True, "ä"]),
                Values(Kind.MIXED, [-1, 2**64 - 1, 2**64]),
                Values(Kind.MIXED, [0.0, b"\0", ""]),
            ],
        ),
        2,
    ),
    "rows with NULLs": Frame(
        Rows(
            9,
            [
                Values(Kind.INT, [None, 1, 2, 3, 4, 5, 6, 7, None]),
                Values(Kind.TEXT, ["a", None, "c", "d", "e", "f", "g", "h", "i"]),
                Values(Kind.TEXT, [None] * 9),
            ],
        ),
        2,
    ),
    "ended": Frame(Ended(1500, None), 0),
    "ended, no row changed": Frame(Ended(0, 0), 0),
    "progress": Frame(Progress("load", 4096, 150_000, "rows"), 0),
    "metrics of a round": Frame(Metrics({"train-mlogloss": 0.25, "validate-mlogloss": 0.0}, 0), 0),
    "metrics, final": Frame(Metrics({"accuracy": 1.0}, kept=True), 0),
    "display": Frame(Display("image/png", b"\x89PNG\0"), 0),
    "failure": Frame(failure("cannot read table t: it does not exist", "", "user_error", "unprinted"), 4),
    "failure of no statement": Frame(
        failure("no response", "Traceback", "transient", "unclear", "not_executed", "unprinted")
    ),
    "commit": Frame(Commit(), 7),
    "span": Frame(span(), 0),
}
RECEIVED = {
    "start": Start({"db_conn_str": "sqlite:///ä" + "x" * 200}),
    "start without secrets": Start({}),
    "ack": Ack(2**40),
    "granted": Granted(),
    "refused": Refused("attempt 2 has started"),
    "step, which this version does not know": None,
}


def test_each_golden_case_is_known() -> None:
    assert set(CASES) == {*SENT, *RECEIVED}


@pytest.mark.parametrize("name", SENT)
def test_frames_are_encoded_as_the_golden_bytes(name: str) -> None:
    assert b"".join(SENT[name].encode()).hex() == CASES[name]["hex"]


@pytest.mark.parametrize("name", RECEIVED)
def test_golden_bytes_are_decoded(name: str) -> None:
    found, expected = decode(bytes.fromhex(CASES[name]["hex"])), RECEIVED[name]
    assert type(found) is type(expected)
    assert found is None or vars(found) == vars(expected)


@pytest.mark.parametrize("name", CASES)
def test_golden_bytes_have_the_golden_fields(name: str) -> None:
    message = AgentFrame if name in RECEIVED else SubmitterFrame
    expected = json_format.ParseDict(CASES[name]["fields"], message())
    assert message.FromString(bytes.fromhex(CASES[name]["hex"])) == expected
    assert expected.SerializeToString(deterministic=True).hex() == CASES[name]["hex"]


def test_unknown_fields_are_skipped() -> None:
    unknown = wire.present_integer(90, 1) + wire.present_double(91, 1.5) + b"\xe5\x05abcd" + wire.present_text(93, "x")
    assert vars(decode(unknown + wire.present_bytes(2, unknown + b"\x08\x05" + unknown)) or object()) == {"ack_id": 5}
    assert decode(unknown) is None


def test_text_with_lone_surrogates_is_sent_escaped() -> None:
    frame = SubmitterFrame.FromString(b"".join(Frame(Failure("no file \udcff")).encode()))
    assert frame.failure.message == r"no file \udcff"


LIMITS = [0, 1, 127, 128, *(2**bits + step for bits in (49, 55, 56, 62) for step in (-1, 0, 1)), 2**63 - 1]


def integers(chance: random.Random, is_signed: bool) -> list[int]:
    """Returns integers of one magnitude, with limits among them, for several blocks or a part of one."""
    count = chance.choice([1, 2, 7, packed.BLOCK - 1, packed.BLOCK, 2 * packed.BLOCK + 1])
    top = 2 ** chance.randrange(1, 64)
    limits = chance.random() / 2
    values = [chance.choice(LIMITS) if chance.random() < limits else chance.randrange(top) for _ in range(count)]
    if is_signed and chance.random() < 0.5:
        return [chance.choice([value, ~value]) for value in values]
    return values if is_signed else [2 * value + chance.randrange(2) for value in values]


def test_varints_of_a_column_are_those_of_its_values() -> None:
    chance = random.Random(1)
    for _ in range(300):
        signed, unsigned = integers(chance, True), integers(chance, False)
        assert packed.varints(array("q", signed)) == b"".join(map(wire.varint, signed))
        assert packed.varints(array("Q", unsigned)) == b"".join(map(wire.varint, unsigned))
        zigzags = map(wire.zigzag, signed)
        assert packed.varints(array("q", signed), zigzag=True) == b"".join(map(wire.varint, zigzags))


COLUMNS: list[tuple[Kind, str, list[Any]]] = [
    (Kind.BOOL, "bools", [True, False]),
    (Kind.INT, "int64s", LIMITS),
    (Kind.INT, "int64s", [-(2**63), 0, 5]),
    (Kind.INT, "uint64s", [2**63, 0, 2**64 - 1]),
    (Kind.FLOAT, "doubles", [0.1, -1e300, float("inf")]),
    (Kind.TEXT, "strings", ["", "a", "x" * 127, "x" * 128]),
    (Kind.TEXT, "strings", ["", "ä", "ä" * 64, "😀" * 40]),
    (Kind.BLOB, "blobs", [b"", b"\0", b"\xff" * 200]),
    (Kind.DECIMAL, "decimals", ["1.50", "-0"]),
    (Kind.DATE, "dates", [-719162, 2932896]),
    (Kind.TIMESTAMP, "timestamps", [-(2**62), 2**62]),
    (Kind.TIMESTAMP_UTC, "timestamps", [-1, 1]),
]


@pytest.mark.parametrize(("kind", "field", "values"), COLUMNS)
@pytest.mark.parametrize("count", [1, 3, 5000])
@pytest.mark.parametrize("has_nulls", [False, True])
def test_columns_are_decoded_by_protobuf(
    kind: Kind, field: str, values: Sequence[Any], count: int, has_nulls: bool
) -> None:
    column = [values[row % len(values)] for row in range(count)]
    if has_nulls:
        column[-1] = None
    found = Column.FromString(b"".join(encode_column(Values(kind, column))))
    if column == [None]:
        assert (found.WhichOneof("values"), found.nulls) == (None, b"\x01")
        return
    assert found.WhichOneof("values") == field
    assert list(getattr(found, field).values) == [ZEROS[kind] if value is None else value for value in column]
    assert [bool(found.nulls and found.nulls[row // 8] >> row % 8 & 1) for row in range(count)] == [
        value is None for value in column
    ]
    assert found.timestamps.has_zone == (kind is Kind.TIMESTAMP_UTC)


def test_each_kind_has_an_encoder() -> None:
    assert set(ENCODERS) == set(Kind)
