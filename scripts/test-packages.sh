#!/usr/bin/env bash
# Installs the system packages that the tests need: databases; Go, to decode models and to build services; Java and Maven
# for HDFS, and all of them for the clients of docs/writing-a-client.md; Node.js for an OpenID Connect provider; a browser for the
# web pages; promtool for metrics. With `bench`, also installs the programs that the agent is compared with. With
# `cluster`, also installs those of a Kubernetes node.
set -euo pipefail

missing=()
compgen -G '/usr/lib/postgresql/*/bin/postgres' > /dev/null || command -v postgres > /dev/null || missing+=(postgresql)
command -v mariadbd > /dev/null || [ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
command -v go > /dev/null || missing+=(golang-go)
command -v java > /dev/null || missing+=(default-jdk-headless)
command -v mvn > /dev/null || missing+=(maven)
command -v node > /dev/null || missing+=(nodejs)
command -v npm > /dev/null || missing+=(npm)
command -v faketime > /dev/null || missing+=(faketime)
command -v chromium > /dev/null || missing+=(chromium)
command -v chromedriver > /dev/null || missing+=(chromium-driver)
command -v promtool > /dev/null || missing+=(prometheus)
command -v setpriv > /dev/null || missing+=(util-linux)
if [ "${1:-}" = cluster ]; then
    for program in containerd runc iptables ipset conntrack socat mmdebstrap openssl; do
        command -v "$program" > /dev/null || [ -x "/usr/sbin/$program" ] || missing+=("$program")
    done
    [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
    command -v ip > /dev/null || missing+=(iproute2)
fi
if [ "${1:-}" = bench ]; then
    for peer in tini dumb-init; do command -v "$peer" > /dev/null || missing+=("$peer"); done
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
    echo "cannot run the tests: packages are missing; install them: ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}"
apt-get update -qq
# RUNLEVEL=1: do not start services, because the tests start their own servers.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" > /dev/null
