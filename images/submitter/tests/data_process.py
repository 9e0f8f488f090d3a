"""The data process beside a statement that runs in the tests' process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import data_process, read_frame, write_frame
from protos.sqlflow.agent.v1.channel_pb2 import AgentFrame, SubmitterFrame

from sqlflow_submitter.link import DESCRIPTOR_VARIABLE, Link


@contextmanager
def served(document: dict[str, Any], dsn: str, folder: Path) -> Iterator[Link]:
    """Starts the data process for a step, and yields the link to it."""
    (folder / "step.json").write_text(json.dumps(document))
    agent_end, channel = socket.socketpair()
    submitter_end, link = socket.socketpair()
    environment = {**os.environ, "SQLFLOW_CHANNEL_FD": str(channel.fileno()), DESCRIPTOR_VARIABLE: str(link.fileno())}
    process = subprocess.Popen(
        [data_process(), "step.json"], cwd=folder, env=environment, pass_fds=[channel.fileno(), link.fileno()]
    )
    channel.close()
    link.close()
    with agent_end, agent_end.makefile("rwb") as stream:
        start = AgentFrame()
        start.start.secrets["db_conn_str"] = dsn
        write_frame(stream, start)

        def acknowledge() -> None:
            while (body := read_frame(stream)) is not None:
                frame = SubmitterFrame.FromString(body)
                if frame.ack_id:
                    answer = AgentFrame()
                    answer.ack.ack_id = frame.ack_id
                    write_frame(stream, answer)

        reader = threading.Thread(target=acknowledge)
        reader.start()
        try:
            yield Link(submitter_end.detach())
        finally:
            process.kill()
            process.wait()
            reader.join()
