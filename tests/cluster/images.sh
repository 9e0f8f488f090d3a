#!/usr/bin/env bash
# images.sh: builds the images of the Dockerfiles in images/ without registry or daemon, and imports them into the test
# cluster as sqlflow.test/{agent,server,submitter}:dev. The layers below the programs are cached. SQLFLOW_IMAGE_PROGRAMS is
# the folder of server and command line; the default is that of `make build`.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${SQLFLOW_CACHE:-$HOME/.cache/sqlflow}/images
programs=${SQLFLOW_IMAGE_PROGRAMS:-${CARGO_TARGET_DIR:-target}/debug}
agent=$SQLFLOW_TEST_STATIC_AGENT
data=$(dirname "$agent")/sqlflow-data
mkdir -p "$cache"

base=$cache/bookworm-python3.tar
if [ ! -f "$base" ]; then
    echo "making a root file system; this takes a minute, once" >&2
    mmdebstrap --quiet --format=tar --variant=minbase --include=python3,ca-certificates bookworm "$base.$$"
    mv "$base.$$" "$base"
fi
root=$cache/bookworm-python3
if [ ! -d "$root" ]; then
    rm -rf "$root.new"
    mkdir "$root.new"
    tar -C "$root.new" --exclude='./dev/*' -xf "$base"
    mv "$root.new" "$root"
fi
compile() { # FOLDER PATH: adds bytecode to a folder that will be PATH in the image, as its Dockerfile does
    local work
    work=$(mktemp -d "$root/tmp/compile.XXXXXX")
    mv "$1" "$work/files"
    # The image's Python, because each version has bytecode of its own.
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        chroot "$root" python3 -m compileall -qf --invalidation-mode unchecked-hash \
        -s "${work#"$root"}/files" -p "$2" "${work#"$root"}/files"
    mv "$work/files" "$1"
    rmdir "$work"
}
# Debian's Python is 3.11, whatever this machine's is.
packages=$cache/packages-$(sha256sum < images/submitter/requirements.txt | cut -c 1-12)
if [ ! -d "$packages" ]; then
    echo "installing the submitter's packages; this takes a minute, once" >&2
    rm -rf "$packages.new"
    # pip evaluates markers for the Python that runs it, so the lines are selected here.
    sed -e '/python_version >= "3.12"/d' -e 's/;.*//' images/submitter/requirements.txt > "$packages.txt"
    "${SQLFLOW_TEST_PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --target "$packages.new" \
        --python-version 3.11 --only-binary=:all: --no-deps -r "$packages.txt"
    find "$packages.new" -name __pycache__ -prune -exec rm -rf {} +
    compile "$packages.new" /opt/packages
    mv "$packages.new" "$packages"
fi
packages_layer=$packages.tar
if [ ! -f "$packages_layer" ]; then
    tar -C "$packages" --owner=0 --group=0 --mtime=@0 --transform 's,^\.,opt/packages,' -cf "$packages_layer.$$" .
    mv "$packages_layer.$$" "$packages_layer"
fi

image() { # NAME ARGUMENTS…
    local name=$1
    shift
    # Unchanged content is imported only once.
    tests/cluster/image.py "$cache/$name.tar" "sqlflow.test/$name:dev" --user 65532:65532 "$@"
    tests/cluster/cluster.sh import "$cache/$name.tar"
    rm "$cache/$name.tar"
}
image agent --entrypoint /sqlflow-agent --file "$agent=/sqlflow-agent" --file "$data=/sqlflow-data"
image server --layer "$base" --entrypoint /usr/local/bin/sqlflow-server --file "$programs/sqlflow-server=/usr/local/bin/sqlflow-server" \
    --file "$programs/sqlflowctl=/usr/local/bin/sqlflowctl"
submitter=$(mktemp -d "$cache/submitter.XXXXXX")
trap 'rm -rf "$submitter"' EXIT
cp -R images/submitter/sqlflow_submitter "$submitter"
find "$submitter" -name __pycache__ -prune -exec rm -rf {} +
compile "$submitter/sqlflow_submitter" /opt/sqlflow/sqlflow_submitter
image submitter --layer "$base" --layer "$packages_layer" --entrypoint /sqlflow-agent \
    --env PYTHONPATH=/opt/sqlflow:/opt/packages \
    --file "$submitter/sqlflow_submitter=/opt/sqlflow/sqlflow_submitter" --file "$agent=/sqlflow-agent" \
    --file "$data=/sqlflow-data"
