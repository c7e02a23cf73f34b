// Command kc is the programs of one Kubernetes cluster in one binary: tests start real clusters with it.
//
// One binary because it is a third of the size of six, is linked once, and all processes of all clusters share its
// pages. The first argument, or the name it is started under, says which program it is; the rest is that program's own:
//
//	kc etcd DIRECTORY ADDRESS
//	kc kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy FLAGS
//
// With KC_ENDS_WITH_STDIN set it ends as soon as its standard input does: a test that holds the other end of that pipe
// leaves nothing behind however it dies.
package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	_ "time/tzdata"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Each constructor registers flags of its process, so only the one that is asked for may run.
var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if name := filepath.Base(os.Args[0]); name == "kc" && len(os.Args) > 1 {
		os.Args = os.Args[1:]
	}
	name := filepath.Base(os.Args[0])
	if os.Getenv("KC_ENDS_WITH_STDIN") != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(3)
		}()
	}
	if name == "etcd" {
		if err := etcd(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "etcd:", err)
			os.Exit(1)
		}
		return
	}
	command, known := components[name]
	if !known {
		fmt.Fprintf(os.Stderr, "kc: no component is called %q: see the head of main.go\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(command()))
}

// etcd keeps one cluster's objects until a signal ends it. It never waits for the disk: what a test loses in a crash of
// the machine is lost with the test.
func etcd(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("it takes a directory and an address, not %d arguments", len(arguments))
	}
	clients := url.URL{Scheme: "http", Host: arguments[1]}
	config := embed.NewConfig()
	config.Dir = arguments[0]
	config.ListenClientUrls = []url.URL{clients}
	config.AdvertiseClientUrls = []url.URL{clients}
	config.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "localhost:0"}}
	config.UnsafeNoFsync = true
	config.LogLevel = "error"

	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-signals:
		return nil
	case err := <-server.Err():
		return err
	}
}
