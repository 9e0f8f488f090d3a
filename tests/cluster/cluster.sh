#!/usr/bin/env bash
# cluster.sh up|down: a Kubernetes of one node on this machine, for tests: real control plane, kubelet and containerd.
# `up` does nothing if the cluster runs, and prints KUBECONFIG; `down` removes everything. Needs root and Linux.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${SQLFLOW_CLUSTER_DIR:-/var/tmp/sqlflow-cluster}
kubeconfig=$dir/admin.kubeconfig

# An unused address of this machine that Pods can reach too.
host_ip=10.250.0.1
pod_net=10.244.0.0/24
bridge_ip=10.244.0.1
service_net=10.96.0.0/16
api_port=16443
node=sqlflow-node
disk_mib=3072

fail() { echo "cluster: $*" >&2; exit 1; }
[ "$(uname -s)" = Linux ] || fail "only Linux can run it"
[ "$(id -u)" = 0 ] || fail "it needs root, to start containers"

program() { "$here/../../scripts/test-tool.sh" "$1"; }
kubectl() { "$kubernetes" kubectl --kubeconfig "$kubeconfig" "$@"; }

# Whether one of the cluster's programs runs: its pid may have been reused.
runs() {
    [ -f "$dir/$1.pid" ] && grep -qa "$dir/" "/proc/$(cat "$dir/$1.pid")/cmdline" 2> /dev/null
}

# run NAME COMMAND…: in the background, with a pid file and a log.
run() {
    local name=$1
    shift
    if runs "$name"; then return; fi
    setsid nohup "$@" > "$dir/$name.log" 2>&1 < /dev/null &
    echo $! > "$dir/$name.pid"
}

# wait_for SECONDS WHAT COMMAND…
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "$what did not come; see $dir/*.log"
        sleep 0.2
    done
}

certificate() { # NAME SUBJECT [ALTERNATIVE NAMES]
    local name=$1 subject=$2 names=${3:-}
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$dir/pki/$name.key" \
        -subj "$subject" -out "$dir/pki/$name.csr" 2> /dev/null
    openssl x509 -req -in "$dir/pki/$name.csr" -CA "$dir/pki/ca.crt" -CAkey "$dir/pki/ca.key" -CAcreateserial -days 365 \
        -extfile <(echo "extendedKeyUsage=serverAuth,clientAuth"; [ -z "$names" ] || echo "subjectAltName=$names") \
        -out "$dir/pki/$name.crt" 2> /dev/null
}

config_for() { # FILE CERTIFICATE
    cat > "$dir/$1.kubeconfig" << EOF
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$host_ip:$api_port", certificate-authority: $dir/pki/ca.crt}}]
users: [{name: u, user: {client-certificate: $dir/pki/$2.crt, client-key: $dir/pki/$2.key}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
EOF
}

secrets() {
    [ -f "$dir/pki/done" ] && return
    mkdir -p "$dir/pki"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$dir/pki/ca.key" \
        -subj "/CN=sqlflow-test-ca" -days 365 -out "$dir/pki/ca.crt" 2> /dev/null
    openssl genrsa -out "$dir/pki/sa.key" 2048 2> /dev/null
    certificate apiserver "/CN=kube-apiserver" \
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:$host_ip,IP:10.96.0.1"
    certificate admin "/O=system:masters/CN=admin"
    certificate controller-manager "/CN=system:kube-controller-manager"
    certificate scheduler "/CN=system:kube-scheduler"
    certificate proxy "/CN=system:kube-proxy"
    certificate kubelet "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$host_ip"
    for name in admin controller-manager scheduler proxy kubelet; do config_for $name $name; done
    touch "$dir/pki/done"
}

control_plane() {
    run etcd "$kubernetes" etcd --data-dir "$dir/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:12379 \
        --advertise-client-urls http://127.0.0.1:12379 --listen-peer-urls http://127.0.0.1:12380
    run apiserver "$kubernetes" kube-apiserver --etcd-servers http://127.0.0.1:12379 --secure-port $api_port \
        --bind-address 0.0.0.0 --advertise-address $host_ip --service-cluster-ip-range $service_net \
        --authorization-mode Node,RBAC --client-ca-file "$dir/pki/ca.crt" --tls-cert-file "$dir/pki/apiserver.crt" \
        --tls-private-key-file "$dir/pki/apiserver.key" --service-account-key-file "$dir/pki/sa.key" \
        --service-account-signing-key-file "$dir/pki/sa.key" --service-account-issuer https://kubernetes.default.svc \
        --kubelet-client-certificate "$dir/pki/admin.crt" --kubelet-client-key "$dir/pki/admin.key" \
        --kubelet-preferred-address-types InternalIP --enable-admission-plugins NodeRestriction --allow-privileged=true
    wait_for 120 "the apiserver" kubectl get --raw /readyz
    run controller-manager "$kubernetes" kube-controller-manager --kubeconfig "$dir/controller-manager.kubeconfig" \
        --service-account-private-key-file "$dir/pki/sa.key" --root-ca-file "$dir/pki/ca.crt" \
        --use-service-account-credentials --leader-elect=false --secure-port 16257 --node-monitor-grace-period 20s
    run scheduler "$kubernetes" kube-scheduler --kubeconfig "$dir/scheduler.kubeconfig" --leader-elect=false \
        --secure-port 16259
}

# The container that holds a Pod's namespaces does nothing.
pause_image() {
    local work=$dir/pause
    mkdir -p "$work"
    printf '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n' > "$work/pause.c"
    cc -static -O2 -o "$work/pause" "$work/pause.c"
    "$here/image.py" "$work/pause.tar" sqlflow.test/pause:1 --entrypoint /pause --file "$work/pause=/pause"
    ctr_import "$work/pause.tar"
}

ctr_import() { ctr --address "$dir/containerd.sock" --namespace k8s.io images import "$1" > /dev/null; }

node() {
    local cni=$dir/cni
    mkdir -p "$cni" "$dir/manifests"
    cat > "$cni/10-bridge.conflist" << EOF
{"cniVersion": "0.4.0", "name": "sqlflow-test", "plugins": [
  {"type": "bridge", "bridge": "sqlflow0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$dir/cni-state", "ranges": [[{"subnet": "$pod_net"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
    cat > "$dir/containerd.toml" << EOF
version = 2
root = "$dir/containerd"
state = "$dir/containerd-run"
[grpc]
  address = "$dir/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "sqlflow.test/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
EOF
    run containerd containerd --config "$dir/containerd.toml"
    wait_for 30 containerd ctr --address "$dir/containerd.sock" version
    pause_image
    cat > "$dir/kubelet.yaml" << EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
address: $host_ip
authentication: {x509: {clientCAFile: $dir/pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
tlsCertFile: $dir/pki/kubelet.crt
tlsPrivateKeyFile: $dir/pki/kubelet.key
containerRuntimeEndpoint: unix://$dir/containerd.sock
clusterDNS: ["10.96.0.10"]
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
evictionHard: {memory.available: 100Mi, nodefs.available: 300Mi, imagefs.available: 300Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 4s
syncFrequency: 10s
# What Pods have on disk is measured once a minute by default, and tests wait for it.
volumeStatsAggPeriod: 3s
EOF
    run kubelet "$kubernetes" kubelet --config "$dir/kubelet.yaml" --kubeconfig "$dir/kubelet.kubeconfig" \
        --hostname-override $node --node-ip $host_ip --root-dir "$dir/kubelet" --cert-dir "$dir/kubelet-pki"
    run proxy "$kubernetes" kube-proxy --kubeconfig "$dir/proxy.kubeconfig" --proxy-mode iptables \
        --hostname-override $node --cluster-cidr $pod_net --conntrack-max-per-core 0 \
        --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s \
        --healthz-bind-address 127.0.0.1:16256 --metrics-bind-address 127.0.0.1:16249
    wait_for 120 "the node" node_is_ready
    kubectl taint nodes $node node.kubernetes.io/not-ready- > /dev/null 2>&1 || true
}

node_is_ready() {
    [ "$(kubectl get node $node -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

names_are_ready() { (exec 3<> /dev/tcp/$host_ip/10054 && printf 'GET /ready HTTP/1.0\r\n\r\n' >&3 && grep -q OK <&3); }

# Names for Services: CoreDNS on this machine, behind a Service as Pods know it.
names() {
    cat > "$dir/Corefile" << EOF
.:10053 {
    bind $host_ip
    kubernetes cluster.local {
        kubeconfig $dir/admin.kubeconfig
    }
    ready $host_ip:10054
}
EOF
    run coredns "$(program coredns)" -conf "$dir/Corefile"
    wait_for 60 CoreDNS names_are_ready
    kubectl apply -f - > /dev/null << EOF
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: dns, port: 53, targetPort: 10053, protocol: UDP}, {name: dns-tcp, port: 53, targetPort: 10053, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-host, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 10053, protocol: UDP}, {name: dns-tcp, port: 10053, protocol: TCP}]
endpoints: [{addresses: ["$host_ip"], conditions: {ready: true}}]
EOF
}

up() {
    for tool in containerd runc iptables conntrack openssl cc; do
        command -v $tool > /dev/null || fail "$tool is missing; scripts/test-packages.sh cluster installs it"
    done
    kubernetes=$(program kubernetes)
    # The node of a full disk runs no Pods, and each test would find out by its timeout.
    local free
    free=$(df --output=avail -BM "$(dirname "$dir")" | tail -1 | tr -dc 0-9)
    [ "$free" -ge "$disk_mib" ] || fail "$(dirname "$dir") has $free MiB free, and the cluster needs $disk_mib MiB"
    # Leftovers of a restart of the machine are useless.
    if [ -d "$dir" ] && ! { runs apiserver && runs etcd && runs kubelet && runs containerd; }; then down; fi
    mkdir -p "$dir"
    ln -sf "$kubernetes" "$dir/kubernetes"
    ip addr replace $host_ip/32 dev lo
    sysctl -qw net.ipv4.ip_forward=1
    secrets
    control_plane
    node
    names
    kubectl -n default get serviceaccount default > /dev/null 2>&1 || wait_for 30 "the default account" kubectl -n default get serviceaccount default
    echo "$kubeconfig"
}

down() {
    [ -d "$dir" ] || return 0
    local kubernetes=$dir/kubernetes
    # Pods first, so that their networks are released; then the controllers, and the apiserver last.
    timeout 5 "$kubernetes" kubectl --kubeconfig "$kubeconfig" delete pods --all --all-namespaces --grace-period=0 --force \
        --wait=false > /dev/null 2>&1 || true
    for name in coredns kubelet proxy scheduler controller-manager apiserver etcd; do stop $name; done
    for task in $(ctr --address "$dir/containerd.sock" --namespace k8s.io tasks list -q 2> /dev/null); do
        ctr --address "$dir/containerd.sock" --namespace k8s.io tasks kill --signal KILL "$task" > /dev/null 2>&1 || true
    done
    stop containerd
    # Shims outlive containerd.
    pkill -KILL -f "containerd-shim-runc-v2.*$dir/containerd.sock" || true
    timeout 10 "$kubernetes" kube-proxy --cleanup > /dev/null 2>&1 || true
    for table in mangle nat filter; do
        for chain in KUBE-KUBELET-CANARY KUBE-PROXY-CANARY; do iptables -t $table -X $chain 2> /dev/null || true; done
    done
    for hook in INPUT OUTPUT; do iptables -D $hook -j KUBE-FIREWALL 2> /dev/null || true; done
    iptables -F KUBE-FIREWALL 2> /dev/null && iptables -X KUBE-FIREWALL || true
    forget_policies
    ip link delete sqlflow0 2> /dev/null || true
    ip addr del $host_ip/32 dev lo 2> /dev/null || true
    for namespace in $(ip netns list 2> /dev/null | awk '/^cni-/ {print $1}'); do ip netns delete "$namespace" || true; done
    grep -o " $dir/[^ ]*" /proc/mounts | sort -r | while read -r mount; do umount -l "$mount" 2> /dev/null || true; done
    rm -rf "$dir"
}

# Rules and addresses that a killed test of network policies left.
forget_policies() {
    local policies='KUBE-(ROUTER|POD-FW|NWPLCY)-' name
    if iptables-save -t filter | grep -cE "$policies" > /dev/null; then
        iptables-save -t filter | grep -vE "$policies" | iptables-restore -T filter
    fi
    for name in $(ipset list -n 2> /dev/null | grep -E '^(KUBE-(SRC|DST)|TMP)-'); do ipset destroy "$name"; done
    for name in 10.250.0.2 169.254.169.254; do ip addr del $name/32 dev lo 2> /dev/null || true; done
}

stop() {
    local file=$dir/$1.pid pid
    runs "$1" || return 0
    pid=$(cat "$file")
    kill "$pid" 2> /dev/null || true
    for _ in $(seq 20); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2> /dev/null || true
    rm -f "$file"
}

case ${1:-} in
    up) up ;;
    down) down ;;
    import) ctr_import "$2" ;;
    *) echo "usage: $0 up|down|import IMAGE.tar" >&2; exit 64 ;;
esac
