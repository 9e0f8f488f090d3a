"""Runs one step of a SQLFlow program.

The server generates a short `main.py` that calls `run_step("step.json")`; all other code is in this package. A step of
standard statements imports neither numpy nor xgboost, and only the driver of its database, so that it starts fast.
`make bench` measures its start-up time.
"""

from sqlflow_submitter.runner import run_step
from sqlflow_submitter.version import __version__

__all__ = ["__version__", "run_step"]
