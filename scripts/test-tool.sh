#!/usr/bin/env bash
# test-tool.sh NAME: makes a program that the tests talk to and prints where it is. Made once for each version: the
# cache is outside the clone.
#   kubernetes              a whole cluster's programs in one (tests/cluster)
#   coredns, weed, jaeger   names for Services, an S3 server, a tracing backend (tests/tools)
#   hadoop                  a folder with the jars of a real HDFS (tests/tools)
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${SQLFLOW_CACHE:-$HOME/.cache/sqlflow}/tools

name=$1
module=tests/tools/$name
case $name in
    kubernetes) module=tests/cluster package=. ;;
    coredns) package=github.com/coredns/coredns ;;
    weed) package=github.com/seaweedfs/seaweedfs/weed ;;
    jaeger) package=github.com/jaegertracing/jaeger/cmd/jaeger ;;
    hadoop) ;;
    *) echo "no such tool: $name" >&2; exit 64 ;;
esac

# The sums of Go name every version of what is built.
version=$(find "$module" -maxdepth 1 \( -name 'go.*' -o -name '*.go' -o -name pom.xml \) | sort | xargs cat | sha256sum | cut -c 1-12)
made=$cache/$name-$version/$name
if [ ! -e "$made" ]; then
    echo "making $name; this takes minutes, once" >&2
    mkdir -p "$(dirname "$made")"
    unfinished=$made.$$
    trap 'rm -rf "$unfinished"' EXIT
    if [ "$name" = hadoop ]; then
        mvn -q -B -f "$module/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$unfinished" > /dev/null
        # HDFS wants folders for its pages, empty as they may be.
        mkdir -p "$unfinished"/webapps/{hdfs,datanode}
    else
        (cd "$module" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w" -o "$unfinished" "$package")
    fi
    mv -T "$unfinished" "$made"
fi
echo "$made"
