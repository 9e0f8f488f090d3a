#!/usr/bin/env bash
# venv.sh VENV REQUIREMENTS [PACKAGE]: makes a virtual environment hold these packages. Quick when it does already.
set -euo pipefail
venv=$1 requirements=$2 more=${3:-}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; this is $(python3 --version)" >&2
    exit 1
}
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv" || {
    echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2
    exit 1
}
# All that is asked for, files that name others included.
wanted=$(cat "$(dirname "$requirements")"/requirements*.txt; echo "$more")
held=$venv/.holds-$(basename "$requirements")
if [ "$wanted" != "$(cat "$held" 2> /dev/null)" ]; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" ${more:+"$more"}
    echo "$wanted" > "$held"
fi
