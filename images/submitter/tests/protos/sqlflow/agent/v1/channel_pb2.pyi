from protos.sqlflow.record.v1 import record_pb2 as _record_pb2
from protos.sqlflow.v1 import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubmitterFrame(_message.Message):
    __slots__ = ("statement", "ack_id", "started", "head", "rows", "ended", "progress", "metrics", "display", "failure", "commit", "span")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    ACK_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    statement: int
    ack_id: int
    started: _record_pb2.StatementStarted
    head: _data_pb2.Head
    rows: _data_pb2.Rows
    ended: _record_pb2.StatementEnded
    progress: _data_pb2.Progress
    metrics: _data_pb2.Metrics
    display: _data_pb2.Display
    failure: Failure
    commit: Commit
    span: Span
    def __init__(self, statement: _Optional[int] = ..., ack_id: _Optional[int] = ..., started: _Optional[_Union[_record_pb2.StatementStarted, _Mapping]] = ..., head: _Optional[_Union[_data_pb2.Head, _Mapping]] = ..., rows: _Optional[_Union[_data_pb2.Rows, _Mapping]] = ..., ended: _Optional[_Union[_record_pb2.StatementEnded, _Mapping]] = ..., progress: _Optional[_Union[_data_pb2.Progress, _Mapping]] = ..., metrics: _Optional[_Union[_data_pb2.Metrics, _Mapping]] = ..., display: _Optional[_Union[_data_pb2.Display, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., span: _Optional[_Union[Span, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("message", "detail", "user_error", "transient", "unclear", "not_executed", "unprinted", "peer_lost")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    USER_ERROR_FIELD_NUMBER: _ClassVar[int]
    TRANSIENT_FIELD_NUMBER: _ClassVar[int]
    UNCLEAR_FIELD_NUMBER: _ClassVar[int]
    NOT_EXECUTED_FIELD_NUMBER: _ClassVar[int]
    UNPRINTED_FIELD_NUMBER: _ClassVar[int]
    PEER_LOST_FIELD_NUMBER: _ClassVar[int]
    message: str
    detail: str
    user_error: bool
    transient: bool
    unclear: bool
    not_executed: bool
    unprinted: bool
    peer_lost: bool
    def __init__(self, message: _Optional[str] = ..., detail: _Optional[str] = ..., user_error: _Optional[bool] = ..., transient: _Optional[bool] = ..., unclear: _Optional[bool] = ..., not_executed: _Optional[bool] = ..., unprinted: _Optional[bool] = ..., peer_lost: _Optional[bool] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("id", "parent", "name", "begin_unix_micros", "end_unix_micros", "attributes", "events", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEGIN_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    END_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    parent: int
    name: str
    begin_unix_micros: int
    end_unix_micros: int
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    events: _containers.RepeatedCompositeFieldContainer[SpanEvent]
    error: str
    def __init__(self, id: _Optional[int] = ..., parent: _Optional[int] = ..., name: _Optional[str] = ..., begin_unix_micros: _Optional[int] = ..., end_unix_micros: _Optional[int] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[SpanEvent, _Mapping]]] = ..., error: _Optional[str] = ...) -> None: ...

class SpanEvent(_message.Message):
    __slots__ = ("name", "time_unix_micros", "attributes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_MICROS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    time_unix_micros: int
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    def __init__(self, name: _Optional[str] = ..., time_unix_micros: _Optional[int] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("key", "text", "integer", "number")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    key: str
    text: str
    integer: int
    number: float
    def __init__(self, key: _Optional[str] = ..., text: _Optional[str] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AgentFrame(_message.Message):
    __slots__ = ("start", "ack", "granted", "refused", "step", "command_ended")
    START_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COMMAND_ENDED_FIELD_NUMBER: _ClassVar[int]
    start: Start
    ack: Ack
    granted: Granted
    refused: Refused
    step: Step
    command_ended: CommandEnded
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., granted: _Optional[_Union[Granted, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., command_ended: _Optional[_Union[CommandEnded, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("secrets", "agent_version")
    class SecretsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    secrets: _containers.ScalarMap[str, str]
    agent_version: str
    def __init__(self, secrets: _Optional[_Mapping[str, str]] = ..., agent_version: _Optional[str] = ...) -> None: ...

class CommandEnded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Step(_message.Message):
    __slots__ = ("workspace", "arguments", "environment")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    workspace: str
    arguments: _containers.RepeatedScalarFieldContainer[str]
    environment: _containers.ScalarMap[str, str]
    def __init__(self, workspace: _Optional[str] = ..., arguments: _Optional[_Iterable[str]] = ..., environment: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("ack_id",)
    ACK_ID_FIELD_NUMBER: _ClassVar[int]
    ack_id: int
    def __init__(self, ack_id: _Optional[int] = ...) -> None: ...

class Granted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
