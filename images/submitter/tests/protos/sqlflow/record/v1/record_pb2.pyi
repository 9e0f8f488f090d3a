from protos.sqlflow.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Record(_message.Message):
    __slots__ = ("seq", "time_unix_micros", "statement", "output", "head", "rows", "started", "ended", "progress", "metrics", "display", "gap", "notice", "model")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time_unix_micros: int
    statement: int
    output: Output
    head: _data_pb2.Head
    rows: _data_pb2.Rows
    started: StatementStarted
    ended: StatementEnded
    progress: _data_pb2.Progress
    metrics: _data_pb2.Metrics
    display: _data_pb2.Display
    gap: Gap
    notice: Notice
    model: ModelPublished
    def __init__(self, seq: _Optional[int] = ..., time_unix_micros: _Optional[int] = ..., statement: _Optional[int] = ..., output: _Optional[_Union[Output, _Mapping]] = ..., head: _Optional[_Union[_data_pb2.Head, _Mapping]] = ..., rows: _Optional[_Union[_data_pb2.Rows, _Mapping]] = ..., started: _Optional[_Union[StatementStarted, _Mapping]] = ..., ended: _Optional[_Union[StatementEnded, _Mapping]] = ..., progress: _Optional[_Union[_data_pb2.Progress, _Mapping]] = ..., metrics: _Optional[_Union[_data_pb2.Metrics, _Mapping]] = ..., display: _Optional[_Union[_data_pb2.Display, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., notice: _Optional[_Union[Notice, _Mapping]] = ..., model: _Optional[_Union[ModelPublished, _Mapping]] = ...) -> None: ...

class StoredRecord(_message.Message):
    __slots__ = ("position", "step", "attempt", "rank", "record", "shift")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    position: int
    step: int
    attempt: int
    rank: int
    record: Record
    shift: int
    def __init__(self, position: _Optional[int] = ..., step: _Optional[int] = ..., attempt: _Optional[int] = ..., rank: _Optional[int] = ..., record: _Optional[_Union[Record, _Mapping]] = ..., shift: _Optional[int] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("stream", "offset", "data")
    class Stream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STREAM_UNSPECIFIED: _ClassVar[Output.Stream]
        STREAM_STDOUT: _ClassVar[Output.Stream]
        STREAM_STDERR: _ClassVar[Output.Stream]
    STREAM_UNSPECIFIED: Output.Stream
    STREAM_STDOUT: Output.Stream
    STREAM_STDERR: Output.Stream
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    stream: Output.Stream
    offset: int
    data: bytes
    def __init__(self, stream: _Optional[_Union[Output.Stream, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class StatementStarted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatementEnded(_message.Message):
    __slots__ = ("duration_micros", "rows_affected")
    DURATION_MICROS_FIELD_NUMBER: _ClassVar[int]
    ROWS_AFFECTED_FIELD_NUMBER: _ClassVar[int]
    duration_micros: int
    rows_affected: int
    def __init__(self, duration_micros: _Optional[int] = ..., rows_affected: _Optional[int] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("reason", "bytes")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Gap.Reason]
        REASON_AGENT_LOST: _ClassVar[Gap.Reason]
        REASON_SPOOL_FULL: _ClassVar[Gap.Reason]
        REASON_RETENTION: _ClassVar[Gap.Reason]
        REASON_DRAIN: _ClassVar[Gap.Reason]
        REASON_LIMIT: _ClassVar[Gap.Reason]
        REASON_LOG_RESTORED: _ClassVar[Gap.Reason]
        REASON_DAMAGED: _ClassVar[Gap.Reason]
    REASON_UNSPECIFIED: Gap.Reason
    REASON_AGENT_LOST: Gap.Reason
    REASON_SPOOL_FULL: Gap.Reason
    REASON_RETENTION: Gap.Reason
    REASON_DRAIN: Gap.Reason
    REASON_LIMIT: Gap.Reason
    REASON_LOG_RESTORED: Gap.Reason
    REASON_DAMAGED: Gap.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    reason: Gap.Reason
    bytes: int
    def __init__(self, reason: _Optional[_Union[Gap.Reason, str]] = ..., bytes: _Optional[int] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("kind", "text")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Notice.Kind]
        KIND_STATUS: _ClassVar[Notice.Kind]
        KIND_WARNING: _ClassVar[Notice.Kind]
        KIND_END: _ClassVar[Notice.Kind]
    KIND_UNSPECIFIED: Notice.Kind
    KIND_STATUS: Notice.Kind
    KIND_WARNING: Notice.Kind
    KIND_END: Notice.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: Notice.Kind
    text: str
    def __init__(self, kind: _Optional[_Union[Notice.Kind, str]] = ..., text: _Optional[str] = ...) -> None: ...

class ModelPublished(_message.Message):
    __slots__ = ("name", "uri", "size_bytes", "sha256", "replaced", "removed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    name: str
    uri: str
    size_bytes: int
    sha256: bytes
    replaced: EarlierModel
    removed: bool
    def __init__(self, name: _Optional[str] = ..., uri: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., replaced: _Optional[_Union[EarlierModel, _Mapping]] = ..., removed: _Optional[bool] = ...) -> None: ...

class EarlierModel(_message.Message):
    __slots__ = ("made_ms", "trained_by")
    MADE_MS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_BY_FIELD_NUMBER: _ClassVar[int]
    made_ms: int
    trained_by: str
    def __init__(self, made_ms: _Optional[int] = ..., trained_by: _Optional[str] = ...) -> None: ...
