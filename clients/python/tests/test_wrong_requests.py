"""What a client can send is never a fault of the server: it has a code that says whose mistake it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import grpc
import pytest
from real_server import RealServer

from sqlflow._proto import sqlflow_pb2 as pb

UNARY = [f"/sqlflow.v1.SQLFlow/{name}" for name in ("Run", "Fetch", "Cancel", "GetJob", "ListJobs")]
METHODS = [*UNARY, "/proto.SQLFlow/Run", "/proto.SQLFlow/Fetch", "/proto.SQLFlow/IsFinished"]
STREAMS = {"/proto.SQLFlow/Run", "/proto.SQLFlow/IsFinished"}

NO_MESSAGES = [
    b"\xff",
    # Shorter than it says.
    b"\x0a\x7fabc",
    # A field of another type, and one that does not exist with no end.
    b"\x0d\x00\x00\x00\x00",
    b"\xfa\xff\xff\xff\x0f\x0a",
]
NOT_UTF8 = b"\x0a\x04\xff\xfe\xfd\xfc"
"""Field 1, which is a text in most of the messages, and a number or a message in others."""

OF_A_CALLER = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}

Send = Callable[[str, bytes], grpc.StatusCode]


@pytest.fixture
def send(server: RealServer) -> Iterator[Send]:
    """Sends bytes to a method, and returns the code."""
    with grpc.insecure_channel(server.address) as channel:

        def sent(method: str, request: bytes) -> grpc.StatusCode:
            try:
                if method in STREAMS:
                    list(channel.unary_stream(method)(request, timeout=60))
                else:
                    channel.unary_unary(method)(request, timeout=60)
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code
            return grpc.StatusCode.OK

        yield sent


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_are_a_mistake_of_the_caller(method: str, send: Send) -> None:
    for request in (*NO_MESSAGES, NOT_UTF8):
        assert send(method, request) is grpc.StatusCode.INVALID_ARGUMENT, request


@pytest.mark.parametrize("method", METHODS)
def test_call_without_a_message_is_a_mistake_of_the_caller(method: str, server: RealServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(method)(iter([]), timeout=60)
        with pytest.raises(grpc.RpcError):
            list(call)
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, call.details()
        assert call.details().startswith("cannot read the request: "), call.details()


@pytest.mark.parametrize("method", METHODS)
def test_no_bytes_are_a_fault_of_the_server(method: str, send: Send) -> None:
    choose = random.Random(method)
    for _ in range(100):
        request = choose.randbytes(choose.randrange(1, 24))
        if choose.random() < 0.5:
            # A text in field 1.
            request = b"\x0a" + bytes([len(request)]) + bytes(byte % 0x5F + 0x20 for byte in request)
        code = send(method, request)
        failed_job = {grpc.StatusCode.FAILED_PRECONDITION} if method == "/proto.SQLFlow/Run" else set()
        assert code in OF_A_CALLER | failed_job, (request, code)


def test_mistakes_in_fields_have_their_codes(send: Send) -> None:
    run, fetch = UNARY[:2]
    wrong = grpc.StatusCode.INVALID_ARGUMENT
    for program in (
        "SELECT * FROM iris TO TRAIN",
        "SELECT 'open",
        "SELECT * FROM iris TO TRAIN no.such LABEL a INTO m",
    ):
        assert send(run, pb.Request(sql=program).SerializeToString()) is wrong, program
    for source in ("oracle://h/d", "sqlite://relative", "mysql://", "x" * 100_000, "postgresql://h/d?no_such=1"):
        session = pb.Session(db_conn_str=source)
        assert send(run, pb.Request(sql="SELECT 1", session=session).SerializeToString()) is wrong, source[:20]
    long_user = pb.Session(user_id="u" * 100_000)
    assert send(run, pb.Request(sql="SELECT 1", session=long_user).SerializeToString()) is wrong
    assert send(run, pb.Request(sql="SELECT 1", request_id="short").SerializeToString()) is wrong
    assert send(run, pb.Request(sql=f"SELECT '{'x' * (18 << 20)}'").SerializeToString()) is wrong
    for token in ("", "x", "sqlflow", "sqlflow" + "0" * 31, "sqlflow" + "0" * 32 + ".x"):
        assert send(fetch, pb.Token(token=token).SerializeToString()) is wrong, token
    nobody = pb.Token(token="sqlflow" + "0" * 32)
    assert send(fetch, nobody.SerializeToString()) is grpc.StatusCode.NOT_FOUND


def test_repeated_request_id_of_another_program_has_its_code(send: Send) -> None:
    name = "3f0e7d36-16c2-4c6c-9d1c-6b7b5c9a7d11"
    first, second = (pb.Request(sql=f"SELECT {n}", request_id=name).SerializeToString() for n in (1, 2))
    codes = [send(UNARY[0], request) for request in (first, first, second)]
    assert codes == [grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.ALREADY_EXISTS]


def test_unknown_method_has_its_code(send: Send) -> None:
    assert send("/sqlflow.v1.SQLFlow/NoSuch", b"") is grpc.StatusCode.UNIMPLEMENTED
    assert send("/no.Such/Run", b"") is grpc.StatusCode.UNIMPLEMENTED
