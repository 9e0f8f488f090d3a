#!/usr/bin/env bash
# uninstall.sh PREFIX: removes what install.sh installed there. States, logs and models are not below it, and stay.
set -euo pipefail
prefix=$1
list=$prefix/lib/sqlflow/installed
[ -f "$list" ] || { echo "nothing of SQLFlow is installed in $prefix" >&2; exit 1; }
cd "$prefix"
while IFS= read -r file; do
    rm -f "$file"
    # Folders that are empty now; not the prefix itself.
    rmdir -p --ignore-fail-on-non-empty "$(dirname "$file")" 2> /dev/null || true
done < "$list"
rm -rf lib/sqlflow/venv
rm -f "$list"
rmdir -p --ignore-fail-on-non-empty lib/sqlflow 2> /dev/null || true
echo "SQLFlow is removed from $prefix"
