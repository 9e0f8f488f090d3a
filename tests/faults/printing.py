"""Makes every submitter print numbered lines while it runs, so that the offset of a byte determines its value.

Installed as `sitecustomize.py`, which Python imports when it starts.
"""

import atexit
import os
import threading


def _print_until(over: threading.Event) -> None:
    number = 0
    while not over.wait(0.005):
        os.write(1, b"%07d\n" % number)
        number += 1
    os.write(1, b"E%06d\n" % number)


if "SQLFLOW_ATTEMPT" in os.environ:
    _over = threading.Event()
    _thread = threading.Thread(target=_print_until, args=(_over,), daemon=True)
    _thread.start()

    def _end() -> None:
        _over.set()
        _thread.join()

    atexit.register(_end)
