package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

var errURL = errors.New("the URL is neither https://HOST:PORT nor unix:PATH")

// transport returns the transport to the service and the base URL.
func (o *Options) transport() (*http.Transport, string, error) {
	t := &http.Transport{
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if path, ok := strings.CutPrefix(o.URL, "unix:"); ok && path != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return t, "http://hsm-kp", nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, "", errURL
	}
	if _, err := o.security(); err != nil {
		return nil, "", err
	}
	t.ForceAttemptHTTP2 = true
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := o.security()
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	}
	return t, strings.TrimSuffix(u.String(), "/"), nil
}

// security reads the files and returns the configuration of a TLS connection.
func (o *Options) security() (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(o.Certificate, o.Key)
	if err != nil {
		return nil, fmt.Errorf("load the caller's certificate: %w", err)
	}
	text, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("read CA certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read CA certificates: %s has none in PEM", o.CA)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		RootCAs:      roots,
		NextProtos:   []string{"h2", "http/1.1"},
	}, nil
}
