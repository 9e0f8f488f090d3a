"""The log of a job as text."""

from __future__ import annotations

import codecs

from sqlflow.events import Log

MOST = 8 * 1024
"""Characters that are kept back at most: an error is one sentence."""


class LogText:
    """Decodes output, and keeps back the last line of standard error, which may be the sentence that the job ends with.

    Records are cut anywhere, also within a character. So each stream of each attempt has a decoder of its own.
    """

    def __init__(self) -> None:
        self._decoders: dict[tuple[int, int, str], codecs.IncrementalDecoder] = {}
        self._held = ""
        self._is_partial = False
        """Whether the beginning of the line was shown already."""

    def add(self, log: Log) -> str:
        """Takes output. Returns what to show now."""
        key = (log.step, log.attempt, log.stream)
        if key not in self._decoders:
            self._decoders[key] = codecs.getincrementaldecoder("utf-8")("replace")
        text = self._decoders[key].decode(log.data)
        if log.stream != "stderr":
            return self.take() + text
        self._held += text
        begin = self._held.rstrip().rfind("\n") + 1
        shown, self._held = self._held[:begin], self._held[begin:]
        self._is_partial = self._is_partial and not shown
        return shown + self.take() if len(self._held) > MOST else shown

    def take(self) -> str:
        """Returns what was kept back, to show it now."""
        held, self._held = self._held, ""
        if held:
            self._is_partial = not held.endswith("\n")
        return held

    def end(self) -> str:
        """Returns what was kept back, and the characters that remained incomplete."""
        rest = "".join(decoder.decode(b"", final=True) for decoder in self._decoders.values())
        self._decoders.clear()
        return self.take() + rest

    def drop_if_in(self, message: str) -> None:
        """Drops the line if a message says it: as the whole sentence, as its first clause, or as its last one."""
        line, message = self._held.strip(), message.removeprefix("warning: ")
        is_first = message == line or message.startswith(f"{line}; ")
        if line and not self._is_partial and (is_first or message.endswith(f": {line}")):
            self._held = ""
