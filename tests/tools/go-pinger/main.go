// go-pinger ADDRESS PROGRAM calls proto.SQLFlow/Run, and meanwhile pings the server each 10 seconds, which is the shortest
// time that Go's library allows. It ends with the call, and prints the call's status.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	err := run(os.Args[1], os.Args[2])
	fmt.Printf("%s: %v\n", status.Code(err), err)
}

func run(address, program string) error {
	pings := keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true}
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithKeepaliveParams(pings))
	if err != nil {
		return err
	}
	defer connection.Close()
	call, err := connection.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, "/proto.SQLFlow/Run")
	if err != nil {
		return err
	}
	// Both the Request and a StringValue hold a text as field 1.
	if err := call.SendMsg(wrapperspb.String(program)); err != nil {
		return err
	}
	if err := call.CloseSend(); err != nil {
		return err
	}
	for {
		if err := call.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
	}
}
