package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/client"
)

// A member that adds a client takes one of its key packages.
func ExampleClient_Claim() {
	c, err := client.Open(client.Options{
		URL:         "https://hsm-kp.example.com:8443",
		Certificate: "/etc/app/tls.pem", Key: "/etc/app/tls.key", CA: "/etc/app/ca.pem",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	claimed, err := c.Claim(context.Background(), "alice", 1)
	switch {
	case errors.Is(err, client.ErrNoneLeft):
		log.Fatal("alice is to run hsm-kp replenish")
	case err != nil:
		log.Fatal(err)
	}
	fmt.Printf("an MLSMessage of %d bytes", len(claimed[0].GetMlsMessage()))
}

// A client joins by a Welcome, and confirms when the member is stored.
func ExampleClient_OpenWelcome() {
	ctx := context.Background()
	c, err := client.Open(client.Options{URL: "unix:/run/hsm-kp/hsm-kp.sock"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var welcome []byte // an MLSMessage
	opened, reservation, err := c.OpenWelcome(ctx, &hsmkpv1.OpenWelcomeRequest{Identity: "alice", Welcome: welcome})
	if err != nil {
		log.Fatal(err)
	}
	if err := store(opened.GetJoinerSecret(), opened.GetGroupInfo()); err != nil {
		log.Print(c.Release(ctx, reservation))
		return
	}
	if err := c.Confirm(ctx, reservation); err != nil {
		log.Fatal(err)
	}
}

// A member signs what it sends. SignContent is for libraries that pass their signer a whole
// SignContent.
func ExampleSigner() {
	c, err := client.Open(client.Options{URL: "unix:/run/hsm-kp/hsm-kp.sock"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var framedContentTBS []byte
	signature, err := c.Signer("alice").SignWithLabel(context.Background(), "FramedContentTBS", framedContentTBS)
	if errors.Is(err, client.ErrForeignContent) {
		log.Fatal("the content is not alice's")
	}
	fmt.Printf("a signature of %d bytes", len(signature))
}

// store stands for what an MLS library makes of a Welcome's secrets.
func store(joinerSecret, groupInfo []byte) error { return nil }
