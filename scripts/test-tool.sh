#!/usr/bin/env bash
# test-tool.sh NAME: builds a program that the tests use, and prints its path. Each version is built once, because the
# cache is outside the clone.
#   kubernetes              all programs of a cluster in one (tests/cluster)
#   coredns, weed, jaeger   DNS for Services, an S3 server, a tracing backend (tests/tools)
#   network-policies        enforces a cluster's network policies (tests/tools)
#   go-pinger               a client in Go that pings often (tests/tools)
#   hadoop                  a folder with the jars of a real HDFS (tests/tools)
#   oidc-provider           a folder with an OpenID Connect provider for Node.js (tests/tools)
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${SQLFLOW_CACHE:-$HOME/.cache/sqlflow}/tools

name=$1
module=tests/tools/$name
case $name in
    kubernetes) module=tests/cluster package=. ;;
    coredns) package=github.com/coredns/coredns ;;
    go-pinger | network-policies) package=. ;;
    weed) package=github.com/seaweedfs/seaweedfs/weed ;;
    jaeger) package=github.com/jaegertracing/jaeger/cmd/jaeger ;;
    hadoop | oidc-provider) ;;
    *) echo "cannot build $name: no such tool; see $0" >&2; exit 64 ;;
esac

# The checksum files of Go and npm contain the versions of all modules.
version=$(find "$module" -maxdepth 1 \( -name 'go.*' -o -name '*.go' -o -name pom.xml -o -name 'package*.json' -o -name '*.mjs' \) | sort | xargs cat | sha256sum | cut -c 1-12)
built=$cache/$name-$version/$name
if [ ! -e "$built" ]; then
    echo "building $name; this takes minutes the first time" >&2
    mkdir -p "$(dirname "$built")"
    unfinished=$built.$$
    trap 'rm -rf "$unfinished"' EXIT
    if [ "$name" = hadoop ]; then
        mvn -q -B -f "$module/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$unfinished" > /dev/null
        # HDFS needs folders for its web pages. They may be empty.
        mkdir -p "$unfinished"/webapps/{hdfs,datanode}
    elif [ "$name" = oidc-provider ]; then
        mkdir "$unfinished"
        cp "$module"/{main.mjs,package.json,package-lock.json} "$unfinished"
        (cd "$unfinished" && npm ci --silent --ignore-scripts --no-audit --no-fund)
    else
        (cd "$module" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w" -o "$unfinished" "$package")
    fi
    mv -T "$unfinished" "$built"
fi
echo "$built"
