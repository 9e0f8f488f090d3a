#!/usr/bin/env bash
# venv.sh VENV REQUIREMENTS [PACKAGE]: installs packages into a virtual environment, unless they are already there.
set -euo pipefail
venv=$1 requirements=$2 package=${3:-}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "cannot create $venv: Python 3.11 or newer is needed, and this is $(python3 --version)" >&2
    exit 1
}
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv" || {
    echo "cannot create $venv: python3 -m venv failed; on Debian: apt-get install python3-venv" >&2
    exit 1
}
# The contents of all requirements files, because one may include another.
wanted=$(cat "$(dirname "$requirements")"/requirements*.txt; echo "$package")
stamp=$venv/.holds-$(basename "$requirements")
if [ "$wanted" != "$(cat "$stamp" 2> /dev/null)" ]; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check --compile -r "$requirements" ${package:+"$package"}
    echo "$wanted" > "$stamp"
fi
