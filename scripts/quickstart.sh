#!/usr/bin/env bash
# Runs the main job: starts a server on loopback, loads Fisher's irises into SQLite, and trains and uses a model.
# Called by `make quickstart`. Its files stay in build/quickstart.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=$CARGO_TARGET_DIR/debug
python=$SQLFLOW_TEST_PYTHON
folder=$PWD/build/quickstart
rm -rf "$folder"
mkdir -p "$folder"

echo "== Fisher's irises into $folder/iris.db"
"$python" tests/data/load_iris.py "$folder/iris.db"

echo "== a server on loopback"
# Create the log first: the loop below may read it before the server starts.
: > "$folder/server.log"
PYTHONPATH=$PWD/images/submitter "$programs/sqlflow-server" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --state-dir "$folder/state" \
    --datasource "sqlite://$folder/iris.db" --python "$python" --log-format json 2> "$folder/server.log" &
server=$!
trap 'kill $server 2> /dev/null; wait $server 2> /dev/null || true' EXIT
address=
until [ -n "$address" ]; do
    kill -0 $server 2> /dev/null || { cat "$folder/server.log" >&2; exit 1; }
    address=$(sed -n 's/.*"listen":"\([^"]*\)".*/\1/p' "$folder/server.log")
    sleep 0.05
done

echo "== examples/iris.sql"
"$programs/sqlflowctl" run --server "$address" -f examples/iris.sql 2>&1 | tee "$folder/output.txt"

echo "== the job"
"$programs/sqlflowctl" list --server "$address"

echo "== the model's files"
for file in sqlflow.gob iris_model.tar.gz; do
    ls -l "$folder/state/models/iris_model/$file"
done
tar tzf "$folder/state/models/iris_model/iris_model.tar.gz"
