"""`python -P -m sqlflow_submitter.duckdb_data step.json`, as agents start it."""

import sys

from sqlflow_submitter.duckdb_data.shutdown import Shutdown

if len(sys.argv) != 2:
    sys.exit("usage: python -P -m sqlflow_submitter.duckdb_data STEP")
shutdown = Shutdown()
# Before numpy is imported, whose threads would get the signals.
shutdown.listen()

from sqlflow_submitter.duckdb_data.process import run  # noqa: E402

run(sys.argv[1], shutdown)
