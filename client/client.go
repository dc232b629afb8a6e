// Package client calls `hsm-kp serve` from programs in Go: the operations of docs/API.md, a signer
// of MLS structures, and HPKE private keys of key packages, none of which leaves the service.
//
// It needs no C compiler and no PKCS#11 module.
//
// Errors are *Error. What a program branches on is asked by errors.Is, with the Err values of
// this package:
//
//	claimed, err := c.Claim(ctx, "alice", 1)
//	if errors.Is(err, client.ErrNoneLeft) { … }
package client

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
)

// Options say where the service is, and who calls.
type Options struct {
	// URL is https://HOST:PORT, or unix:PATH.
	URL string
	// Certificate and Key are files of PEM: the caller's chain, and its key. CA is a file
	// of those that the service's certificate must lead to. All are for https, and are
	// read for each connection, so that they may be replaced.
	Certificate, Key, CA string
	// Timeout is for an operation with its repetitions, where the context has no
	// deadline; 0 is DefaultTimeout.
	Timeout time.Duration
	// Attempts is how often an operation that may be repeated is tried at most while the
	// service is UNAVAILABLE; 0 is DefaultAttempts, 1 repeats nothing.
	Attempts int
}

// Defaults of Options.
const (
	DefaultTimeout  = 30 * time.Second
	DefaultAttempts = 4
)

// maxAnswer is the longest answer, in bytes, that is read: a thousand key packages with long
// chains of certificates are far less.
const maxAnswer = 64 << 20

// Client calls a service. It is safe for concurrent use.
type Client struct {
	api      hsmkpv1connect.KeyPackageServiceClient
	http     *http.Client
	timeout  time.Duration
	attempts int
}

// Open returns a client. It reads the files that o names, and connects when something is asked
// for.
func Open(o Options) (*Client, error) {
	transport, base, err := o.transport()
	if err != nil {
		return nil, fmt.Errorf("open client of hsm-kp: %w", err)
	}
	c := &Client{http: &http.Client{Transport: transport}, timeout: o.Timeout, attempts: o.Attempts}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.attempts == 0 {
		c.attempts = DefaultAttempts
	}
	c.api = hsmkpv1connect.NewKeyPackageServiceClient(c.http, base,
		connect.WithReadMaxBytes(maxAnswer),
		// Answers have secrets beside what others have chosen: their length is to say nothing.
		connect.WithAcceptCompression("gzip", nil, nil),
	)
	return c, nil
}

// Close closes the connections that nothing is using.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// once calls an operation of the service, once.
func once[In, Out any](ctx context.Context, c *Client, name string, call func(context.Context, *connect.Request[In]) (*connect.Response[Out], error), in *In) (*Out, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	out, err := call(ctx, connect.NewRequest(in))
	if err != nil {
		return nil, errorOf(name, err)
	}
	return out.Msg, nil
}

func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// Generate makes key packages of an identity. It is asked for once: where no answer came they
// may have been made.
func (c *Client) Generate(ctx context.Context, r *hsmkpv1.GenerateRequest) ([]*hsmkpv1.KeyPackage, error) {
	out, err := once(ctx, c, "generate", c.api.Generate, r)
	return out.GetKeyPackages(), err
}

// Claim returns available key packages of an identity, which are the caller's then: n of them,
// or fewer, and at least one. It is asked for once: where no answer came they may be gone.
func (c *Client) Claim(ctx context.Context, identity string, n uint32) ([]*hsmkpv1.KeyPackage, error) {
	out, err := once(ctx, c, "claim", c.api.Claim, &hsmkpv1.ClaimRequest{Identity: identity, Count: n})
	return out.GetKeyPackages(), err
}

// Publish hands key packages of an identity to a directory of the service, those first that were
// on their way there before. It is asked for once: what a directory has not acknowledged, or where no
// answer came, the next Publish sends again.
func (c *Client) Publish(ctx context.Context, r *hsmkpv1.PublishRequest) (*hsmkpv1.PublishResponse, error) {
	return once(ctx, c, "publish", c.api.Publish, r)
}

// Get returns a key package.
func (c *Client) Get(ctx context.Context, ref []byte) (*hsmkpv1.KeyPackage, error) {
	out, err := repeated(ctx, c, "get", c.api.Get, &hsmkpv1.GetRequest{Ref: ref})
	return out.GetKeyPackage(), err
}

// List returns a page of key packages, and the token of the next page, which is empty after the
// last.
func (c *Client) List(ctx context.Context, r *hsmkpv1.ListRequest) ([]*hsmkpv1.KeyPackage, string, error) {
	out, err := repeated(ctx, c, "list", c.api.List, r)
	return out.GetKeyPackages(), out.GetNextPageToken(), err
}
