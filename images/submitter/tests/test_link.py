"""The link to the data process."""

import socket

import pytest

from sqlflow_submitter.link import Link, PeerLost


@pytest.mark.parametrize("reads_request", [True, False])
def test_data_process_that_ends_is_a_lost_peer(reads_request: bool) -> None:
    """If it has not read the request, the kernel reports a reset connection, and not an end."""
    ours, theirs = socket.socketpair()
    link = Link(ours.detach())
    link.send({"read": "statement"})
    if reads_request:
        theirs.recv(1 << 16)
    theirs.close()
    with pytest.raises(PeerLost) as error:
        link.answer()
    assert error.value.peer_lost
