#!/usr/bin/env bash
# certificates.sh NAMESPACE [JOBS]: creates the certificates of the server, for agents and clients: the Secret
# sqlflow-agent-tls in the server's namespace, and the ConfigMap sqlflow-ca there and in the namespace of submitters, whose
# name is by default NAMESPACE-jobs. Run it again to renew them, before 825 days are over. It also creates the Secret
# sqlflow-secrets-key in the server's namespace, with the key that encrypts data sources in the state. Needs kubectl and openssl.
set -euo pipefail
namespace=${1:?usage: certificates.sh NAMESPACE [JOBS]}
jobs=${2:-$namespace-jobs}
kubectl=${KUBECTL:-kubectl}
days=825
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"; }
apply() { $kubectl -n "$1" create "${@:2}" --dry-run=client -o yaml | $kubectl apply -f -; }
key ca
openssl req -x509 -new -key ca.key -subj "/CN=sqlflow agents" -days $days -out ca.crt
key tls
openssl req -new -key tls.key -subj /CN=sqlflow-server -out tls.csr
echo "subjectAltName=DNS:localhost,DNS:sqlflow-server,DNS:sqlflow-server.$namespace,DNS:sqlflow-server.$namespace.svc" > names
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days $days -extfile names -out tls.crt 2> /dev/null

# Until the server has loaded the new certificate it presents the old one, so the CA of the old one stays trusted until the
# next run. Older CAs are removed: the newest is the first in the file.
before=$($kubectl -n "$namespace" get configmap sqlflow-ca --ignore-not-found -o 'jsonpath={.data.ca\.crt}')
if [ -n "$before" ]; then openssl x509 <<< "$before" >> ca.crt; fi
# First trust the new certificate, then present it.
apply "$jobs" configmap sqlflow-ca --from-file ca.crt
apply "$namespace" configmap sqlflow-ca --from-file ca.crt
apply "$namespace" secret tls sqlflow-agent-tls --cert tls.crt --key tls.key
if [ -n "$before" ]; then
    echo "renewed: the server takes the new certificate up by itself within minutes; the CA before is trusted until the next run"
fi

# Never replaced: with another key a server does not start while jobs are live.
if [ -z "$($kubectl -n "$namespace" get secret sqlflow-secrets-key --ignore-not-found -o name)" ]; then
    openssl rand -hex 32 > key
    $kubectl -n "$namespace" create secret generic sqlflow-secrets-key --from-file key
fi
