"""The data process's channel to the agent: what `AgentChannel` has, with secrets, the grant and the submitter's end."""

from __future__ import annotations

import os
import socket
import sys

from sqlflow_submitter import frames
from sqlflow_submitter.channel import CHANNEL_VARIABLE, AgentChannel, inherited
from sqlflow_submitter.errors import CommitRefused, SubmitterError
from sqlflow_submitter.frames import Frame
from sqlflow_submitter.version import __version__


class DataChannel(AgentChannel):
    """The channel of a data process. It cannot be run by hand."""

    @staticmethod
    def open() -> DataChannel:
        """Raises SubmitterError if no agent has started this process."""
        descriptor = inherited(CHANNEL_VARIABLE, "the agent's channel")
        if descriptor is None:
            raise SubmitterError("cannot run the step: no agent has started this program")
        return DataChannel(descriptor)

    def secrets(self) -> dict[str, str]:
        """Returns the assignment's secrets by name. Must be called once, first."""
        start = self._receive()
        if not isinstance(start, frames.Start):
            raise SubmitterError("cannot start: the agent's first frame is not a start frame")
        # Agents of earlier versions do not say theirs.
        if start.agent_version not in ("", __version__):
            raise SubmitterError(
                f"the package sqlflow_submitter of {sys.executable} has version {__version__}, and its agent has "
                f"version {start.agent_version}; install both from the same release"
            )
        return start.secrets

    def wait_for_submitter(self) -> None:
        """Waits until the submitter has ended with 0."""
        while not isinstance(self._receive(), frames.CommandEnded):
            pass

    def commit(self, statement: int) -> None:
        """Waits for the grant to make a statement's effect visible.

        Raises:
            CommitRefused: it must not become visible.
        """
        self.send(Frame(frames.Commit(), statement))
        while True:
            match self._receive():
                case frames.Granted():
                    return
                case frames.Refused(reason=reason):
                    raise CommitRefused(f"cannot commit: the agent refused the grant: {reason}")

    def end_reading(self) -> None:
        """Ends a wait for the agent, from another thread."""
        with socket.socket(fileno=os.dup(self._descriptor)) as channel:
            channel.shutdown(socket.SHUT_RD)
