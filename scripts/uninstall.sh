#!/usr/bin/env bash
# uninstall.sh PREFIX: removes what install.sh installed. Keeps the state folders of servers, which are elsewhere, and the
# tokens of jobs that sqlflowctl stored. It prints where these are.
set -euo pipefail
prefix=$1
list=$prefix/lib/sqlflow/installed
[ -f "$list" ] || { echo "cannot uninstall: SQLFlow is not installed in $prefix" >&2; exit 1; }
cd "$prefix"
while IFS= read -r file; do
    rm -f "$file"
    # Remove folders that are now empty, except the prefix.
    rmdir -p --ignore-fail-on-non-empty "$(dirname "$file")" 2> /dev/null || true
done < "$list"
rm -rf lib/sqlflow/venv
rm -f "$list"
rmdir -p --ignore-fail-on-non-empty lib/sqlflow 2> /dev/null || true
echo "SQLFlow is removed from $prefix"
# Tokens are the only access to jobs, and there is no other copy.
tokens=${XDG_STATE_HOME:-$HOME/.local/state}/sqlflow
if [ -e "$tokens" ]; then
    echo "kept: $tokens, the tokens of the jobs that you have started; to remove them: rm -r '$tokens'"
fi
own=${XDG_DATA_HOME:-$HOME/.local/share}/sqlflow/own
if [ -e "$own" ]; then
    echo "kept: $own, the state of your own server, with logs and models; to remove it: rm -r '$own'"
fi
echo "kept: the state folders of servers (--state-dir), with logs and models"
