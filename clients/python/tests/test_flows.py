"""Retries, cursors and errors, without a server."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from wire import page, pb, record

import sqlflow
from sqlflow import flows
from sqlflow.calls import Call, CallFailed, Flow, Pause
from sqlflow.events import Event
from sqlflow.flows import Program, Reader, Server

AWAY = CallFailed(grpc.StatusCode.UNAVAILABLE, "connection refused")


class Script:
    """Executes flows with answers that are given in advance, on a clock that only pauses move."""

    def __init__(self, *answers: Any, retry_timeout: float = 60.0):
        self.answers = list(answers)
        self.calls: list[Call] = []
        self.now = 0.0
        self.server = Server("http://a:1", retry_timeout, lambda: self.now)

    def drive(self, flow: Flow[Any]) -> Any:
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    self.now += step.seconds
                    step = next(flow)
                    continue
                self.calls.append(step)
                self.now += 0.2
                answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
                step = flow.throw(answer) if isinstance(answer, CallFailed) else flow.send(answer)
        except StopIteration as end:
            return end.value

    def reader(self, token: str = "sqlflow00.0") -> Reader:
        return Reader(self.server, "j", token)


def test_run_is_repeated_with_the_same_request_id() -> None:
    script = Script(AWAY, CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, ""), pb.Token(token="sqlflow00", job_id="j"))
    program = Program("SELECT 1", "sqlite:////db", "ana", 0)
    assert script.drive(flows.run(script.server, program)).token == "sqlflow00"
    first, second, third = (call.request for call in script.calls)
    assert first == second == third
    assert 16 <= len(first.request_id) <= 64
    assert first.session.HasField("fetch_timeout_seconds") and first.session.fetch_timeout_seconds == 0
    script.drive(flows.run(script.server, program))
    assert script.calls[-1].request.request_id != first.request_id, "each program has an id of its own"


def test_server_that_never_answered_is_tried_for_seconds_only() -> None:
    script = Script(AWAY)
    with pytest.raises(sqlflow.ServerUnavailable, match=r"cannot reach the server at http://a:1: connection refused$"):
        script.drive(flows.run(script.server, Program("SELECT 1")))
    assert script.now < 6


def test_server_that_answered_before_is_tried_for_the_retry_timeout() -> None:
    script = Script(pb.ListJobsResponse(), AWAY)
    script.drive(flows.jobs(script.server, 1, ""))
    with pytest.raises(sqlflow.ServerUnavailable, match="the job may have been accepted"):
        script.drive(flows.run(script.server, Program("SELECT 1")))
    assert 55 < script.now < 61


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, sqlflow.InvalidProgram),
        (grpc.StatusCode.NOT_FOUND, sqlflow.JobNotFound),
        (grpc.StatusCode.UNAUTHENTICATED, sqlflow.AccessDenied),
        (grpc.StatusCode.PERMISSION_DENIED, sqlflow.AccessDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, sqlflow.LimitReached),
        (grpc.StatusCode.ALREADY_EXISTS, sqlflow.UsageError),
        (grpc.StatusCode.INTERNAL, sqlflow.ServerFault),
        (grpc.StatusCode.DATA_LOSS, sqlflow.ServerFault),
    ],
)
def test_error_of_the_server_is_not_retried(code: grpc.StatusCode, kind: type[Exception]) -> None:
    script = Script(CallFailed(code, "no"))
    with pytest.raises(kind, match="no"):
        script.drive(flows.run(script.server, Program("SELECT 1")))
    assert len(script.calls) == 1


def test_error_of_a_program_shows_its_place() -> None:
    script = Script(CallFailed(grpc.StatusCode.INVALID_ARGUMENT, "line 2, column 4: found x\nno place"))
    with pytest.raises(sqlflow.InvalidProgram) as error:
        script.drive(flows.run(script.server, Program("SELECT 1;\n漢字 FRM t")))
    assert str(error.value) == "line 2, column 4: found x\n  |\n2 | 漢字 FRM t\n  |    ^\nno place"


def test_each_record_is_read_once() -> None:
    log = {"log": pb.LogChunk(data=b"x", stream=pb.LogChunk.STREAM_STDERR)}
    script = Script(
        page(record(1, **log), record(2, **log), next="sqlflow00.2"),
        AWAY,
        AWAY,
        page(record(2, **log), record(5, **log), next="sqlflow00.5"),
        page(next="sqlflow00.5", status=pb.JobStatus.SUCCEEDED),
    )
    reader = script.reader()
    events: list[Event] = []
    while not reader.has_ended:
        events += script.drive(reader.page())
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["Log", "Log", "Reconnecting", "Reconnected", "Log", "JobEnded"]
    assert [event.position for event in events] == [1, 2, 2, 2, 5, 5]
    tokens = [call.request.token for call in script.calls]
    assert tokens == ["sqlflow00.0", "sqlflow00.2", "sqlflow00.2", "sqlflow00.2", "sqlflow00.5"]


def test_reader_gives_up_and_names_the_position_to_read_on() -> None:
    log = {"log": pb.LogChunk(data=b"x")}
    script = Script(page(record(7, **log), next="sqlflow00.7"), AWAY)
    reader = script.reader()
    script.drive(reader.page())
    with pytest.raises(sqlflow.ServerUnavailable, match=r"the job may continue; read on with job\.events\(after=7\)$"):
        while True:
            script.drive(reader.page())
    assert 55 < script.now < 61


def test_server_that_does_not_wait_is_not_asked_all_the_time() -> None:
    script = Script(page(next="sqlflow00.0"))
    script.server.clock = lambda: 0.0
    flow = script.reader().page()
    assert isinstance(next(flow), Call)
    assert flow.send(page(next="sqlflow00.0")) == Pause(flows.FIRST_PAUSE)


def test_failure_names_the_statement_that_was_running() -> None:
    started = {"started": pb.StatementStarted(sql="SELECT 2")}
    script = Script(
        page(
            record(1, 0, started=pb.StatementStarted(sql="SELECT 1")),
            record(2, 0, eoe=pb.EndOfExecution(sql="SELECT 1")),
            record(3, 1, **started),
            record(4, None, message=pb.Message(message="no", kind=pb.Message.KIND_END)),
            next="sqlflow00.4",
            status=pb.JobStatus.FAILED,
            cause=pb.CAUSE_STATEMENT_FAILED,
            message="no such table",
        )
    )
    ended = script.drive(script.reader().page())[-1]
    failure = ended.error()
    assert (failure.statement, failure.sql, failure.cause) == (1, "SELECT 2", "STATEMENT_FAILED")
    assert str(failure) == "job j failed at statement 2 (STATEMENT_FAILED): no such table"
    assert isinstance(failure, sqlflow.JobFailed) and not isinstance(failure, sqlflow.JobCancelled)


def test_unknown_records_states_and_causes_of_later_servers_are_accepted() -> None:
    unknown = pb.Response.FromString(b"\x70\x01" + b"\xfa\x07\x00")
    status = pb.JobStatus.FromString(b"\x08\x63")
    script = Script(pb.Result(results=[unknown], job_status=status, next=pb.Token(token="sqlflow00.1")))
    reader = script.reader()
    assert script.drive(reader.page()) == []
    failed = pb.JobStatus(code=pb.JobStatus.FAILED, cause=99)  # type: ignore[arg-type]
    script.answers = [pb.Result(job_status=failed)]
    assert script.drive(reader.page())[-1].cause == "UNSPECIFIED"
    assert script.calls[-1].request.token == "sqlflow00.1"


def test_jobs_are_listed_page_by_page() -> None:
    two = pb.ListJobsResponse(jobs=[pb.Job(job_id="a"), pb.Job(job_id="b")], next_page_token="more")
    script = Script(two, pb.ListJobsResponse(jobs=[pb.Job(job_id="c"), pb.Job(job_id="d")]))
    listed = script.drive(flows.jobs(script.server, 3, "ana"))
    assert [job.id for job in listed] == ["a", "b", "c"]
    assert [(call.request.page_size, call.request.page_token) for call in script.calls] == [(3, ""), (1, "more")]
