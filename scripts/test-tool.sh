#!/usr/bin/env bash
# test-tool.sh NAME: builds a program that the tests talk to and prints its path. Built once for each version: the cache
# is outside the clone.
#   kubernetes   a whole cluster's programs in one (tests/cluster)
#   coredns, weed, jaeger   names for Services, an S3 server, a tracing backend (tests/tools)
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${SQLFLOW_CACHE:-$HOME/.cache/sqlflow}/tools

name=$1
case $name in
    kubernetes) module=tests/cluster package=. ;;
    coredns) module=tests/tools/coredns package=github.com/coredns/coredns ;;
    weed) module=tests/tools/weed package=github.com/seaweedfs/seaweedfs/weed ;;
    jaeger) module=tests/tools/jaeger package=github.com/jaegertracing/jaeger/cmd/jaeger ;;
    *) echo "no such tool: $name" >&2; exit 64 ;;
esac

# The sums name every version of what is built.
version=$(cat "$module"/go.mod "$module"/go.sum "$module"/*.go 2> /dev/null | sha256sum | cut -c 1-12)
program=$cache/$name-$version/$name
if [ ! -x "$program" ]; then
    echo "building $name; this takes minutes, once" >&2
    mkdir -p "$(dirname "$program")"
    (cd "$module" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w" -o "$program.$$" "$package")
    mv "$program.$$" "$program"
fi
echo "$program"
