"""Runs one step of a SQLFlow program.

The server generates a short `main.py` that calls `run_step("step.json")`; all other code is in this package. A step of
plain SQL imports only what it needs: not numpy, xgboost or the drivers of other databases. Its start-up time is a
benchmark.
"""

from sqlflow_submitter.runner import run_step
from sqlflow_submitter.version import __version__

__all__ = ["__version__", "run_step"]
