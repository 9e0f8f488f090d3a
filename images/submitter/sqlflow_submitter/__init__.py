"""Runs one step of a SQLFlow program.

The server generates a short `main.py` that calls `run_step("step.json")`; everything else is in here. What a plain SQL
step does not need (numpy, xgboost, drivers of other databases) is not imported for it: its start-up time is a
benchmark.
"""

from sqlflow_submitter.runner import run_step
from sqlflow_submitter.version import __version__

__all__ = ["__version__", "run_step"]
