"""Displays of a job as a notebook shows them.

A job's programs make them, so nothing of them may run in the notebook's page: pictures with scripts become images, and
HTML is shown in a frame without rights.
"""

from __future__ import annotations

import base64
import html
from typing import Any


def mimebundle(media_type: str, data: bytes) -> dict[str, Any]:
    """The content for `IPython.display`."""
    kind = media_type.partition(";")[0].strip().lower()
    bundle: dict[str, Any] = {"text/plain": f"<{kind}, {len(data)} bytes>"}
    match kind:
        case "image/png" | "image/jpeg":
            bundle[kind] = base64.b64encode(data).decode()
        case "image/svg+xml":
            source = base64.b64encode(data).decode()
            # Plots often have no background, and black text: a dark theme would hide it.
            bundle["text/html"] = f'<img alt="plot" style="background:white" src="data:image/svg+xml;base64,{source}">'
        case "text/html":
            page = html.escape(data.decode(errors="replace"), quote=True)
            bundle["text/html"] = (
                f'<iframe sandbox srcdoc="{page}" style="width:100%;height:30em;border:0;background:white"></iframe>'
            )
        case "text/plain":
            bundle["text/plain"] = data.decode(errors="replace")
        case _:
            pass
    return bundle
