import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import data_pb2 as _data_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAUSE_UNSPECIFIED: _ClassVar[Cause]
    CAUSE_STATEMENT_FAILED: _ClassVar[Cause]
    CAUSE_CANCELLED: _ClassVar[Cause]
    CAUSE_NOT_FETCHED: _ClassVar[Cause]
    CAUSE_OUT_OF_MEMORY: _ClassVar[Cause]
    CAUSE_LOST: _ClassVar[Cause]
    CAUSE_MAY_HAVE_EXECUTED: _ClassVar[Cause]
    CAUSE_LAUNCH_FAILED: _ClassVar[Cause]
    CAUSE_STORAGE: _ClassVar[Cause]
    CAUSE_LIMIT: _ClassVar[Cause]
    CAUSE_KILLED: _ClassVar[Cause]
    CAUSE_DEADLINE: _ClassVar[Cause]
CAUSE_UNSPECIFIED: Cause
CAUSE_STATEMENT_FAILED: Cause
CAUSE_CANCELLED: Cause
CAUSE_NOT_FETCHED: Cause
CAUSE_OUT_OF_MEMORY: Cause
CAUSE_LOST: Cause
CAUSE_MAY_HAVE_EXECUTED: Cause
CAUSE_LAUNCH_FAILED: Cause
CAUSE_STORAGE: Cause
CAUSE_LIMIT: Cause
CAUSE_KILLED: Cause
CAUSE_DEADLINE: Cause

class Request(_message.Message):
    __slots__ = ("sql", "session", "request_id")
    SQL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    sql: str
    session: Session
    request_id: str
    def __init__(self, sql: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("token", "db_conn_str", "exit_on_submit", "user_id", "fetch_timeout_seconds")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DB_CONN_STR_FIELD_NUMBER: _ClassVar[int]
    EXIT_ON_SUBMIT_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    FETCH_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    token: str
    db_conn_str: str
    exit_on_submit: bool
    user_id: str
    fetch_timeout_seconds: int
    def __init__(self, token: _Optional[str] = ..., db_conn_str: _Optional[str] = ..., exit_on_submit: _Optional[bool] = ..., user_id: _Optional[str] = ..., fetch_timeout_seconds: _Optional[int] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("token", "job_id", "job_tracer_url")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_TRACER_URL_FIELD_NUMBER: _ClassVar[int]
    token: str
    job_id: str
    job_tracer_url: str
    def __init__(self, token: _Optional[str] = ..., job_id: _Optional[str] = ..., job_tracer_url: _Optional[str] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("job_status", "results", "next")
    JOB_STATUS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    job_status: JobStatus
    results: _containers.RepeatedCompositeFieldContainer[Response]
    next: Token
    def __init__(self, job_status: _Optional[_Union[JobStatus, _Mapping]] = ..., results: _Optional[_Iterable[_Union[Response, _Mapping]]] = ..., next: _Optional[_Union[Token, _Mapping]] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("code", "message", "cause")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PENDING: _ClassVar[JobStatus.Code]
        RUNNING: _ClassVar[JobStatus.Code]
        SUCCEEDED: _ClassVar[JobStatus.Code]
        FAILED: _ClassVar[JobStatus.Code]
        UNKNOWN: _ClassVar[JobStatus.Code]
    PENDING: JobStatus.Code
    RUNNING: JobStatus.Code
    SUCCEEDED: JobStatus.Code
    FAILED: JobStatus.Code
    UNKNOWN: JobStatus.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    code: JobStatus.Code
    message: str
    cause: Cause
    def __init__(self, code: _Optional[_Union[JobStatus.Code, str]] = ..., message: _Optional[str] = ..., cause: _Optional[_Union[Cause, str]] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("position", "statement", "time", "head", "rows", "message", "eoe", "log", "progress", "metrics", "display", "gap", "model", "started")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EOE_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    position: int
    statement: int
    time: _timestamp_pb2.Timestamp
    head: _data_pb2.Head
    rows: _data_pb2.Rows
    message: Message
    eoe: EndOfExecution
    log: LogChunk
    progress: _data_pb2.Progress
    metrics: _data_pb2.Metrics
    display: _data_pb2.Display
    gap: Gap
    model: Model
    started: StatementStarted
    def __init__(self, position: _Optional[int] = ..., statement: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., head: _Optional[_Union[_data_pb2.Head, _Mapping]] = ..., rows: _Optional[_Union[_data_pb2.Rows, _Mapping]] = ..., message: _Optional[_Union[Message, _Mapping]] = ..., eoe: _Optional[_Union[EndOfExecution, _Mapping]] = ..., log: _Optional[_Union[LogChunk, _Mapping]] = ..., progress: _Optional[_Union[_data_pb2.Progress, _Mapping]] = ..., metrics: _Optional[_Union[_data_pb2.Metrics, _Mapping]] = ..., display: _Optional[_Union[_data_pb2.Display, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., started: _Optional[_Union[StatementStarted, _Mapping]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("message", "kind")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Message.Kind]
        KIND_STATUS: _ClassVar[Message.Kind]
        KIND_WARNING: _ClassVar[Message.Kind]
        KIND_END: _ClassVar[Message.Kind]
    KIND_UNSPECIFIED: Message.Kind
    KIND_STATUS: Message.Kind
    KIND_WARNING: Message.Kind
    KIND_END: Message.Kind
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    message: str
    kind: Message.Kind
    def __init__(self, message: _Optional[str] = ..., kind: _Optional[_Union[Message.Kind, str]] = ...) -> None: ...

class StatementStarted(_message.Message):
    __slots__ = ("sql",)
    SQL_FIELD_NUMBER: _ClassVar[int]
    sql: str
    def __init__(self, sql: _Optional[str] = ...) -> None: ...

class EndOfExecution(_message.Message):
    __slots__ = ("sql", "spent_time_seconds", "rows_affected")
    SQL_FIELD_NUMBER: _ClassVar[int]
    SPENT_TIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROWS_AFFECTED_FIELD_NUMBER: _ClassVar[int]
    sql: str
    spent_time_seconds: int
    rows_affected: int
    def __init__(self, sql: _Optional[str] = ..., spent_time_seconds: _Optional[int] = ..., rows_affected: _Optional[int] = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("stream", "offset", "data", "step", "attempt", "rank")
    class Stream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STREAM_UNSPECIFIED: _ClassVar[LogChunk.Stream]
        STREAM_STDOUT: _ClassVar[LogChunk.Stream]
        STREAM_STDERR: _ClassVar[LogChunk.Stream]
    STREAM_UNSPECIFIED: LogChunk.Stream
    STREAM_STDOUT: LogChunk.Stream
    STREAM_STDERR: LogChunk.Stream
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    stream: LogChunk.Stream
    offset: int
    data: bytes
    step: int
    attempt: int
    rank: int
    def __init__(self, stream: _Optional[_Union[LogChunk.Stream, str]] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., step: _Optional[int] = ..., attempt: _Optional[int] = ..., rank: _Optional[int] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("reason", "bytes")
    REASON_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    reason: str
    bytes: int
    def __init__(self, reason: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
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
    __slots__ = ("made", "trained_by")
    MADE_FIELD_NUMBER: _ClassVar[int]
    TRAINED_BY_FIELD_NUMBER: _ClassVar[int]
    made: _timestamp_pb2.Timestamp
    trained_by: str
    def __init__(self, made: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., trained_by: _Optional[str] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "status", "user_id", "created", "ended", "steps", "sql", "last_position", "job_tracer_url", "title")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SQL_FIELD_NUMBER: _ClassVar[int]
    LAST_POSITION_FIELD_NUMBER: _ClassVar[int]
    JOB_TRACER_URL_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    status: JobStatus
    user_id: str
    created: _timestamp_pb2.Timestamp
    ended: _timestamp_pb2.Timestamp
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    sql: str
    last_position: int
    job_tracer_url: str
    title: str
    def __init__(self, job_id: _Optional[str] = ..., status: _Optional[_Union[JobStatus, _Mapping]] = ..., user_id: _Optional[str] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., sql: _Optional[str] = ..., last_position: _Optional[int] = ..., job_tracer_url: _Optional[str] = ..., title: _Optional[str] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("index", "first_statement", "statement_count", "kind", "state", "attempts")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_STATEMENT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    index: int
    first_statement: int
    statement_count: int
    kind: str
    state: JobStatus.Code
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    def __init__(self, index: _Optional[int] = ..., first_statement: _Optional[int] = ..., statement_count: _Optional[int] = ..., kind: _Optional[str] = ..., state: _Optional[_Union[JobStatus.Code, str]] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "state", "launcher", "created", "attached", "ended", "outcome", "cleans_up", "tracker_url")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LAUNCHER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CLEANS_UP_FIELD_NUMBER: _ClassVar[int]
    TRACKER_URL_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: str
    launcher: str
    created: _timestamp_pb2.Timestamp
    attached: _timestamp_pb2.Timestamp
    ended: _timestamp_pb2.Timestamp
    outcome: str
    cleans_up: bool
    tracker_url: str
    def __init__(self, number: _Optional[int] = ..., state: _Optional[str] = ..., launcher: _Optional[str] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attached: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., outcome: _Optional[str] = ..., cleans_up: _Optional[bool] = ..., tracker_url: _Optional[str] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id", "token")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    token: str
    def __init__(self, job_id: _Optional[str] = ..., token: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "user_id", "codes")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    user_id: str
    codes: _containers.RepeatedScalarFieldContainer[JobStatus.Code]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., user_id: _Optional[str] = ..., codes: _Optional[_Iterable[_Union[JobStatus.Code, str]]] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
