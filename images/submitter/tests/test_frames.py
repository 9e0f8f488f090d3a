"""The encoder and decoder of frames, against bytes that Rust is tested with too, and against Google's package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from data_process import PACKAGE
from google.protobuf import json_format
from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, SubmitterFrame
from protos.sqlflow.v1.data_pb2 import Column

from sqlflow_submitter import wire
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
from sqlflow_submitter.rows import Rows, encode_column

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
    "rows with NULLs": Frame(
        Rows(
            [
                [None, 1, 2, 3, 4, 5, 6, 7, None],
                ["a", None, "c", "d", "e", "f", "g", "h", "i"],
                [None] * 9,
            ]
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
    "start": Start({"db_conn_str": f"sqlite:///ä{'x' * 200}"}, ""),
    "start without secrets": Start({}, ""),
    "granted": Granted(),
    "ack": Ack(2**40),
    "refused": Refused("attempt 2 has started"),
    "step, which this version does not know": None,
}


OF_THE_DATA_PROCESS = {"rows of every kind"}


def test_each_golden_case_is_known() -> None:
    assert set(CASES) == {*SENT, *RECEIVED, *OF_THE_DATA_PROCESS}


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

COLUMNS: list[tuple[str, list[Any]]] = [
    ("int64s", LIMITS),
    ("int64s", [-(2**63), 0, 5]),
    ("strings", ["", "a", "x" * 127, "x" * 128]),
    ("strings", ["", "ä", "ä" * 64, "😀" * 40]),
]


@pytest.mark.parametrize(("field", "values"), COLUMNS)
@pytest.mark.parametrize("has_nulls", [False, True])
def test_columns_are_decoded_by_protobuf(field: str, values: Sequence[Any], has_nulls: bool) -> None:
    column = [None, *values] if has_nulls else values
    found = Column.FromString(b"".join(encode_column(column)))
    assert found.WhichOneof("values") == field
    zero: Any = 0 if field == "int64s" else ""
    assert list(getattr(found, field).values) == [zero if value is None else value for value in column]
    assert [bool(found.nulls and found.nulls[row // 8] >> row % 8 & 1) for row in range(len(column))] == [
        value is None for value in column
    ]


def test_columns_of_several_types_are_decoded_by_protobuf() -> None:
    found = Column.FromString(b"".join(encode_column(["a", None, -5])))
    assert [cell.WhichOneof("value") for cell in found.mixed.values] == ["string_value", None, "int64_value"]
    assert (found.mixed.values[0].string_value, found.mixed.values[2].int64_value) == ("a", -5)
    assert found.nulls == b"\x02"
    assert Column.FromString(b"".join(encode_column([None]))).nulls == b"\x01"
