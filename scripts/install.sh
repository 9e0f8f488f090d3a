#!/usr/bin/env bash
# install.sh PREFIX PROGRAMS: installs the programs of a folder below PREFIX, with a Python environment for the submitter,
# manual pages and shell completion. Called by `make install`. The installed files are listed in
# PREFIX/lib/sqlflow/installed, which uninstall.sh reads. Run it again to upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=$1 programs=$2
submitter=images/submitter

case $prefix in
    /*) ;;
    *) echo "cannot install into $prefix: PREFIX must be an absolute path" >&2; exit 2 ;;
esac
lib=$prefix/lib/sqlflow
mkdir -p "$prefix/bin" "$lib"

echo "== the Python environment $lib/venv"
# An environment of a removed Python does not work. Create it again.
if [ -x "$lib/venv/bin/python" ] && ! "$lib/venv/bin/python" -c '' 2> /dev/null; then
    rm -rf "$lib/venv"
fi
scripts/venv.sh "$lib/venv" "$submitter/requirements.txt"
# Build from a copy, because setuptools writes into the source folder.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -R "$submitter/sqlflow_submitter" "$submitter/pyproject.toml" "$copy"
"$lib/venv/bin/pip" install --quiet --disable-pip-version-check --compile --no-deps --force-reinstall "$copy"
(cd / && PYTHONPATH='' "$lib/venv/bin/python" -c 'import sqlflow_submitter, xgboost')

echo "== programs, manual pages and completion"
installed=()
put() { # FILE NAME MODE
    mkdir -p "$(dirname "$prefix/$2")"
    # `install` replaces the file, so a running program is not changed.
    install -m "$3" "$1" "$prefix/$2"
    installed+=("$2")
}
put "$programs/sqlflow-server" bin/sqlflow-server 755
put "$programs/sqlflowctl" bin/sqlflowctl 755
put "$programs/sqlflow-agent" bin/sqlflow-agent 755
put "$programs/sqlflow-data" bin/sqlflow-data 755
"$programs/sqlflowctl" man "$copy/man" 2> /dev/null
"$programs/sqlflow-manual" "$copy/man"
for page in "$copy"/man/*.1; do
    put "$page" "share/man/man1/$(basename "$page")" 644
done
for shell in bash:share/bash-completion/completions/sqlflowctl zsh:share/zsh/site-functions/_sqlflowctl \
    fish:share/fish/vendor_completions.d/sqlflowctl.fish; do
    "$programs/sqlflowctl" completion "${shell%%:*}" > "$copy/completion"
    put "$copy/completion" "${shell#*:}" 644
done
printf '%s\n' "${installed[@]}" > "$lib/installed"

echo "SQLFlow is installed in $prefix"
case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) echo "its programs are not on your PATH; run: export PATH=\"\$PATH:$prefix/bin\"" ;;
esac
