"""Frames and replies of the channel, over a socket pair."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from data_process import encoded, read_frame
from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, SubmitterFrame

from sqlflow_submitter.channel import MAX_FRAME_BYTES, AgentChannel
from sqlflow_submitter.errors import CommitRefused, SubmitterError, UserError
from sqlflow_submitter.frames import Display, Frame, Started


@pytest.fixture
def pair() -> Iterator[tuple[AgentChannel, socket.socket]]:
    submitter_end, agent_end = socket.socketpair()
    with agent_end:
        yield AgentChannel(submitter_end.detach()), agent_end


def answer(agent_end: socket.socket, frame: AgentFrame) -> None:
    agent_end.sendall(encoded(frame))


def started() -> Frame:
    return Frame(Started(), 3)


def test_first_frame_is_a_start(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, agent_end = pair
    answer(agent_end, AgentFrame(start={"secrets": {"of_the_step": "ä" + "x" * 300}}))
    channel.start()


def test_another_first_frame_is_an_error(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, agent_end = pair
    answer(agent_end, AgentFrame(ack={"ack_id": 1}))
    with pytest.raises(SubmitterError, match="start"):
        channel.start()


def test_child_processes_do_not_inherit_the_channel() -> None:
    submitter_end, agent_end = socket.socketpair()
    with agent_end:
        descriptor = submitter_end.detach()
        os.set_inheritable(descriptor, True)
        AgentChannel(descriptor)
        assert not os.get_inheritable(descriptor)


def test_durable_frame_waits_for_its_own_acknowledgement(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, agent_end = pair
    waiting = threading.Thread(target=channel.send_durable, args=(started(),))
    waiting.start()
    sent = SubmitterFrame.FromString(read_frame(agent_end.makefile("rb")) or b"")
    assert sent.ack_id != 0
    answer(agent_end, AgentFrame(ack={"ack_id": sent.ack_id}))
    waiting.join(10)
    assert not waiting.is_alive()


def test_acknowledgement_of_another_frame_is_ignored(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, agent_end = pair
    answer(agent_end, AgentFrame(ack={"ack_id": 999}))
    answer(agent_end, AgentFrame(refused={"reason": "still waiting"}))
    with pytest.raises(CommitRefused, match="still waiting"):
        channel.send_durable(started())


def test_closed_channel_is_an_error(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, agent_end = pair
    agent_end.sendall(b"\x05ab")
    agent_end.shutdown(socket.SHUT_WR)
    with pytest.raises(SubmitterError, match="closed"):
        channel.start()


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x7f"])
def test_malformed_or_huge_length_is_an_error(pair: tuple[AgentChannel, socket.socket], length: bytes) -> None:
    channel, agent_end = pair
    agent_end.sendall(length)
    with pytest.raises(SubmitterError, match=r"length|limit"):
        channel.start()


def test_frame_above_the_limit_is_not_sent(pair: tuple[AgentChannel, socket.socket]) -> None:
    channel, _ = pair
    with pytest.raises(UserError, match="limit"):
        channel.send(Frame(Display("text/plain", b"x" * MAX_FRAME_BYTES), 0))


@pytest.mark.parametrize("body", [b"\x0a\x05ab", b"\x80", b"\x0b", b"\x22\x03\x0a\x01\xff"])
def test_malformed_frame_is_an_error(pair: tuple[AgentChannel, socket.socket], body: bytes) -> None:
    channel, agent_end = pair
    agent_end.sendall(bytes([len(body)]) + body)
    with pytest.raises(SubmitterError, match="cannot read from the agent: a frame is malformed: "):
        channel.start()
