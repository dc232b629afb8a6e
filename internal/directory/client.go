package directory

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/time/rate"
)

// Options are the common options of directories that are reached by HTTP.
type Options struct {
	// URL is where key packages are posted (HTTP), or the base URL of the service (OpenMLS).
	URL string
	// Headers go with every request.
	Headers map[string]string
	// Bearer returns the token that goes with every request (RFC 6750), or is nil for none. It is
	// called for each request, so that the token may be replaced. Errors do not contain the token.
	Bearer func(ctx context.Context) (string, error)
	// CA is a file of PEM certificates, to one of which the server's must lead; empty means those
	// of the system.
	CA string
	// Certificate and Key are PEM files: the client certificate with its chain, and its key. They
	// are read for each connection, so that they may be replaced.
	Certificate, Key string
	// Timeout is for one request, Deadline for all attempts.
	Timeout, Deadline time.Duration
	// Rate is how many requests are sent a second, 0 for no limit; Burst is how many are sent at
	// once.
	Rate  float64
	Burst int
	// Concurrency is how many requests are under way at once, 1 or more.
	Concurrency int
	// MaxResponse is the length of the longest answer that is read, in bytes.
	MaxResponse int64
	// UserAgent identifies this program.
	UserAgent string
}

// client sends requests. It is safe for concurrent use.
type client struct {
	Options
	http  *http.Client
	limit *rate.Limiter
}

func newClient(o Options) (*client, error) {
	base, err := url.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	security, err := o.security()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // proxies of the environment
	transport.TLSClientConfig = security
	transport.MaxIdleConnsPerHost = max(o.Concurrency, 1)
	transport.MaxResponseHeaderBytes = 64 << 10
	return &client{
		Options: o,
		http:    &http.Client{Transport: transport, CheckRedirect: sameHost(base)},
		limit:   newLimiter(o.Rate, o.Burst),
	}, nil
}

// security returns the TLS config of connections.
func (o *Options) security() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA certificates: %s has none in PEM", o.CA)
		}
	}
	if o.Certificate == "" {
		return c, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(o.Certificate, o.Key)
		if err != nil {
			return nil, fmt.Errorf("load client certificate: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return c, nil
}

var (
	errElsewhere = errors.New("it redirects to another host, which must not get the credentials")
	errMethod    = errors.New("it redirects to a method other than POST")
	errTooFar    = errors.New("it redirects too often")
)

// sameHost follows only redirects that keep the host and the method: another host would get the
// credentials, and a POST that became a GET would have published nothing.
func sameHost(base *url.URL) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		switch {
		case next.URL.Host != base.Host || next.URL.Scheme != base.Scheme:
			return errElsewhere
		case next.Method != via[0].Method:
			return errMethod
		case len(via) > 5:
			return errTooFar
		}
		return nil
	}
}

// answer is the response of a directory.
type answer struct {
	status int
	body   []byte
}

// do sends a request once and reads the answer. It returns *later for errors that may pass, and
// *StatusError with the answer for statuses other than 2xx.
func (c *client) do(ctx context.Context, method, url, media string, body []byte, headers map[string]string) (answer, error) {
	if err := c.limit.Wait(ctx); err != nil {
		return answer{}, &later{error: fmt.Errorf("wait for the rate limit: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if err := c.address(ctx, request, media, headers); err != nil {
		return answer{}, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, unanswered(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, c.MaxResponse+1))
	switch {
	case err != nil:
		return answer{}, unanswered(err)
	case int64(len(content)) > c.MaxResponse:
		return answer{}, fmt.Errorf("%w: it has more than %d bytes", ErrAnswer, c.MaxResponse)
	}
	a := answer{response.StatusCode, content}
	if a.status/100 == 2 {
		return a, nil
	}
	said := &StatusError{a.status}
	if said.passing() {
		return a, &later{said, retryAfter(response.Header, time.Now())}
	}
	return a, said
}

// address sets the headers of a request.
func (c *client) address(ctx context.Context, r *http.Request, media string, headers map[string]string) error {
	for _, more := range []map[string]string{c.Headers, headers} {
		for name, value := range more {
			r.Header.Set(name, value)
		}
	}
	r.Header.Set("User-Agent", c.UserAgent)
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	if c.Bearer == nil {
		return nil
	}
	secret, err := c.Bearer(ctx)
	if err != nil {
		return fmt.Errorf("read bearer token: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	return nil
}

// unanswered sorts errors of sending: most may pass, but those of redirects and certificates do
// not. It removes the URL, which may contain a token, from the error.
func unanswered(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	verification := (*tls.CertificateVerificationError)(nil)
	for _, lasting := range []error{errElsewhere, errMethod, errTooFar} {
		if errors.Is(err, lasting) {
			return fmt.Errorf("%w: %w", ErrAnswer, err)
		}
	}
	if errors.As(err, &verification) {
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return &later{error: err}
}
