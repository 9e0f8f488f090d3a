"""The channel's frames and waits, over a socket pair."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from agent import read_frame, varint

from sqlflow_submitter.channel import MAX_FRAME_BYTES, AgentChannel
from sqlflow_submitter.errors import CommitRefused, SubmitterError, UserError
from sqlflow_submitter.proto.sqlflow.agent.v1.channel_pb2 import AgentFrame, SubmitterFrame


@pytest.fixture
def pair() -> Iterator[tuple[AgentChannel, socket.socket]]:
    theirs, is_marked = socket.socketpair()
    with is_marked:
        yield AgentChannel(theirs.detach()), is_marked


def answer(is_marked: socket.socket, frame: AgentFrame) -> None:
    body = frame.SerializeToString()
    is_marked.sendall(bytes(varint(len(body))) + body)


def started() -> SubmitterFrame:
    frame = SubmitterFrame(statement=3)
    frame.started.SetInParent()
    return frame


def test_secrets_come_in_the_first_frame(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, is_marked = pair
    answer(is_marked, AgentFrame(start={"secrets": {"db_conn_str": "sqlite:///ä" + "x" * 300}}))
    assert channel.secrets() == {"db_conn_str": "sqlite:///ä" + "x" * 300}


def test_another_first_frame_is_refused(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, is_marked = pair
    answer(is_marked, AgentFrame(ack={"ack_id": 1}))
    with pytest.raises(SubmitterError, match="start"):
        channel.secrets()


def test_programs_that_user_code_starts_do_not_inherit_the_channel() -> None:
    theirs, is_marked = socket.socketpair()
    with is_marked:
        descriptor = theirs.detach()
        os.set_inheritable(descriptor, True)
        AgentChannel(descriptor)
        assert not os.get_inheritable(descriptor)


def test_a_durable_frame_waits_for_its_own_acknowledgement(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, is_marked = pair
    waiting = threading.Thread(target=channel.send_durable, args=(started(),))
    waiting.start()
    sent = SubmitterFrame.FromString(read_frame(is_marked.makefile("rb")) or b"")
    assert sent.ack_id != 0
    answer(is_marked, AgentFrame(ack={"ack_id": sent.ack_id}))
    waiting.join(10)
    assert not waiting.is_alive()


def test_another_acknowledgement_is_not_taken_for_it(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, is_marked = pair
    answer(is_marked, AgentFrame(ack={"ack_id": 999}))
    answer(is_marked, AgentFrame(refused={"reason": "still waiting"}))
    with pytest.raises(CommitRefused, match="still waiting"):
        channel.send_durable(started())


def test_commit_is_granted_or_refused(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, is_marked = pair
    answer(is_marked, AgentFrame(granted={}))
    channel.commit(1)
    answer(is_marked, AgentFrame(refused={"reason": "attempt 2 took over"}))
    with pytest.raises(CommitRefused, match="attempt 2 took over"):
        channel.commit(1)


def test_a_closed_channel_is_an_error(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, is_marked = pair
    is_marked.sendall(b"\x05ab")
    is_marked.shutdown(socket.SHUT_WR)
    with pytest.raises(SubmitterError, match="closed"):
        channel.secrets()


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x7f"])
def test_a_malformed_or_huge_length_is_an_error(pair: tuple[AgentChannel, socket.socket], length: bytes) -> None:
    channel, is_marked = pair
    is_marked.sendall(length)
    with pytest.raises(SubmitterError, match=r"length|limit"):
        channel.secrets()


def test_a_frame_above_the_limit_is_not_sent(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, _ = pair
    frame = SubmitterFrame(statement=0)
    frame.display.data = b"x" * MAX_FRAME_BYTES
    with pytest.raises(UserError, match="limit"):
        channel.send(frame)
