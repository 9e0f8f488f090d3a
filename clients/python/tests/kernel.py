"""A real IPython kernel, as a notebook uses it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from jupyter_client.manager import KernelManager

TIMEOUT = 60


@dataclass
class Outputs:
    """What a cell showed."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""

    @property
    def text(self) -> str:
        """Everything as text, without colours."""
        parts = []
        for message in self.messages:
            content = message["content"]
            parts.append(content.get("text") or content.get("data", {}).get("text/plain") or "")
            parts += content.get("traceback", [])
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts))

    def of_type(self, media_type: str) -> list[str]:
        """The contents of this type, also those that replaced earlier ones."""
        data = [message["content"].get("data", {}) for message in self.messages]
        return [it[media_type] for it in data if media_type in it]


class Kernel:
    """A kernel that executes cells."""

    def __init__(self) -> None:
        self._manager = KernelManager()
        self._client: Any = None

    def __enter__(self) -> Kernel:
        self._manager.start_kernel()
        self._connect()
        return self

    def _connect(self) -> None:
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=TIMEOUT)

    def restart(self) -> None:
        """Kills the kernel, and starts another with no variables."""
        self._client.stop_channels()
        self._manager.restart_kernel(now=True)
        self._connect()

    def interrupt(self) -> None:
        """What the button of a notebook does."""
        self._manager.interrupt_kernel()

    def run(self, cell: str, hook: Callable[[dict[str, Any]], None] | None = None) -> Outputs:
        """Executes a cell. `hook` gets each output as it appears."""
        outputs = Outputs()

        def note(message: dict[str, Any]) -> None:
            outputs.messages.append(message)
            if hook is not None:
                hook(message)

        reply = self._client.execute_interactive(cell, output_hook=note, timeout=TIMEOUT, allow_stdin=False)
        outputs.status = reply["content"]["status"]
        return outputs

    def value(self, expression: str) -> str:
        """The text of an expression's value."""
        return self.run(f"print({expression})").text.strip()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
