#!/usr/bin/env bash
# certificates.sh NAMESPACE: makes what server and agents show each other: the Secret sqlflow-agent-tls and the ConfigMap
# sqlflow-ca. Run it again to renew them; agents and servers read the new ones. Needs kubectl and openssl. Where
# cert-manager is at hand, let it make both instead.
set -euo pipefail
namespace=${1:?usage: certificates.sh NAMESPACE}
kubectl=${KUBECTL:-kubectl}
days=825
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1.key"; }
key ca
openssl req -x509 -new -key ca.key -subj "/CN=sqlflow agents" -days $days -out ca.crt
key tls
openssl req -new -key tls.key -subj /CN=sqlflow-server -out tls.csr
echo "subjectAltName=DNS:sqlflow-server,DNS:sqlflow-server.$namespace,DNS:sqlflow-server.$namespace.svc" > names
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days $days -extfile names -out tls.crt 2> /dev/null
$kubectl -n "$namespace" create secret tls sqlflow-agent-tls --cert tls.crt --key tls.key --dry-run=client -o yaml | $kubectl apply -f -
$kubectl -n "$namespace" create configmap sqlflow-ca --from-file ca.crt --dry-run=client -o yaml | $kubectl apply -f -
