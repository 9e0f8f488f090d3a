#!/usr/bin/env bash
# uninstall.sh PREFIX: removes what install.sh installed there. What people made stays: states, logs and models, which
# are not below it, and the tokens of their jobs, which sqlflowctl keeps and this names.
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
# Tokens are secrets that open jobs: nobody else has them.
memory=${XDG_STATE_HOME:-$HOME/.local/state}/sqlflow
if [ -e "$memory" ]; then
    echo "kept: $memory, the tokens of the jobs that you have started; to remove them: rm -r '$memory'"
fi
echo "kept: the state folders of servers (--state-dir), with logs and models"
