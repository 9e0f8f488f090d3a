// Command network-policies enforces the network policies of a cluster on one node, until SIGTERM. It is the controller of
// kube-router without the rest of it. The bridge plugin of the test cluster ignores policies.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file that says how to reach the apiserver")
	node := flag.String("node", "", "name of the node")
	services := flag.String("services", "", "addresses of Services")
	flag.Parse()
	config := options.NewKubeRouterConfig()
	config.EnableIPv4 = true
	config.HostnameOverride = *node
	config.ClusterIPCIDRs = []string{*services}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := enforce(ctx, config, *kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "cannot enforce network policies:", err)
		os.Exit(1)
	}
}

func enforce(ctx context.Context, config *options.KubeRouterConfig, kubeconfig string) error {
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	controller := func() (*netpol.NetworkPolicyController, error) {
		tables, sets, err := netpol.NewIPTablesHandlers(config)
		if err != nil {
			return nil, err
		}
		return netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &sync.Mutex{}, tables, sets)
	}
	running, err := controller()
	if err != nil {
		return err
	}
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods:       running.PodEventHandler,
		namespaces: running.NamespaceEventHandler,
		policies:   running.NetworkPolicyEventHandler,
	}
	for informer, handler := range handlers {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	run(ctx, running)

	// Another one, because the buffers of the first have its last rules.
	cleaner, err := controller()
	if err != nil {
		return err
	}
	cleaner.Cleanup()
	return nil
}

func run(ctx context.Context, controller *netpol.NetworkPolicyController) {
	heartbeats := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range heartbeats {
		}
	}()
	var parts sync.WaitGroup
	parts.Add(1)
	controller.Run(heartbeats, ctx.Done(), &parts)
	parts.Wait()
}
