// Package client calls `hsm-kp serve` from programs in Go: the operations of docs/API.md, a
// signer of MLS structures, and HPKE private keys of key packages. No private key leaves the
// service. The package needs no C compiler and no PKCS#11 module.
//
// Operations return an *Error. A program branches with errors.Is and the Err values of this
// package:
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

// Options are the address of the service and the identity of the caller.
type Options struct {
	// URL is https://HOST:PORT, or unix:PATH.
	URL string
	// Certificate and Key are PEM files with the caller's chain and its key. CA is a PEM
	// file with the roots of the service's certificate. All are for https only. They are
	// read for each connection, so they may be replaced.
	Certificate, Key, CA string
	// Timeout limits an operation with its repetitions if the context has no deadline; 0
	// means DefaultTimeout.
	Timeout time.Duration
	// Attempts is the largest number of attempts of an operation that may be repeated,
	// while the service is UNAVAILABLE; 0 means DefaultAttempts, 1 repeats nothing.
	Attempts int
}

// Defaults of Options.
const (
	DefaultTimeout  = 30 * time.Second
	DefaultAttempts = 4
)

// maxAnswer limits the length of an answer, in bytes. A thousand key packages with long
// chains of certificates have far less.
const maxAnswer = 64 << 20

// Client calls a service. It is safe for concurrent use.
type Client struct {
	api      hsmkpv1connect.KeyPackageServiceClient
	http     *http.Client
	timeout  time.Duration
	attempts int
}

// Open returns a client, which the caller closes. It reads the files that o names, and fails
// if they are not usable or the URL has another form. The first operation connects.
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
		// Answers have secrets beside data that others chose: compressed lengths would leak.
		connect.WithAcceptCompression("gzip", nil, nil),
	)
	return c, nil
}

// Close closes the idle connections. It returns nil.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// once calls an operation of the service one time.
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

// Generate makes key packages of an identity and returns them with their MLSMessages. It is not
// repeated: after ErrNoAnswer they may have been made.
func (c *Client) Generate(ctx context.Context, r *hsmkpv1.GenerateRequest) ([]*hsmkpv1.KeyPackage, error) {
	out, err := once(ctx, c, "generate", c.api.Generate, r)
	return out.GetKeyPackages(), err
}

// Claim takes available key packages of an identity, which nobody else gets, and returns them
// with their MLSMessages: at least one and at most n. If there is none, the error is
// ErrNoneLeft. It is not repeated: after ErrNoAnswer they may have been taken.
func (c *Client) Claim(ctx context.Context, identity string, n uint32) ([]*hsmkpv1.KeyPackage, error) {
	out, err := once(ctx, c, "claim", c.api.Claim, &hsmkpv1.ClaimRequest{Identity: identity, Count: n})
	return out.GetKeyPackages(), err
}

// Publish sends key packages of an identity to a directory of the service, and first those that
// earlier calls have sent and the directory has not acknowledged. It is not repeated: the next
// Publish sends what this one has not finished.
func (c *Client) Publish(ctx context.Context, r *hsmkpv1.PublishRequest) (*hsmkpv1.PublishResponse, error) {
	return once(ctx, c, "publish", c.api.Publish, r)
}

// Get returns the key package with a KeyPackageRef of 32 to 64 bytes, and its MLSMessage.
func (c *Client) Get(ctx context.Context, ref []byte) (*hsmkpv1.KeyPackage, error) {
	out, err := repeated(ctx, c, "get", c.api.Get, &hsmkpv1.GetRequest{Ref: ref})
	return out.GetKeyPackage(), err
}

// List returns a page of key packages, the oldest first, and the token of the next page, which
// is "" after the last page.
func (c *Client) List(ctx context.Context, r *hsmkpv1.ListRequest) ([]*hsmkpv1.KeyPackage, string, error) {
	out, err := repeated(ctx, c, "list", c.api.List, r)
	return out.GetKeyPackages(), out.GetNextPageToken(), err
}
