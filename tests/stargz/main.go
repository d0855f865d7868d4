// containerd-stargz-grpc SOCKET ROOT: stargz-snapshotter's own service. Debian's packages have its library and not this program.
//
// As upstream's, it leaves its mounts on SIGTERM, so that it can be started again, and takes them away on SIGINT.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"google.golang.org/grpc"
)

func main() {
	socket, root := os.Args[1], os.Args[2]
	snapshotter, err := service.NewStargzSnapshotterService(context.Background(), root, &service.Config{})
	if err != nil {
		log.Fatal(err)
	}
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		if <-signals == syscall.SIGINT {
			if err := snapshotter.Close(); err != nil {
				log.Fatal(err)
			}
		}
		os.Exit(0)
	}()
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	log.Fatal(server.Serve(listener))
}
