package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// TLSFiles names the files of mutual TLS, in PEM. Reload reads them again.
type TLSFiles struct {
	Certificate, Key string // the service's chain and its key
	ClientCA         string // the CAs that certify callers
	CRL              string // revocation lists of these CAs, PEM or DER; optional
}

// TLS is mutual TLS 1.3 with certificates that may change while it serves. It is safe for
// concurrent use.
type TLS struct {
	files TLSFiles
	now   func() time.Time
	state atomic.Pointer[tlsState]
}

type tlsState struct {
	config  *tls.Config
	revoked revocation
}

// OpenTLS reads the files. now is the clock.
func OpenTLS(files TLSFiles, now func() time.Time) (*TLS, error) {
	t := &TLS{files: files, now: now}
	return t, t.Reload()
}

// Reload reads the files again. If one of them is faulty, it keeps all as they were. Open
// connections stay open.
func (t *TLS) Reload() error {
	certificate, err := tls.LoadX509KeyPair(t.files.Certificate, t.files.Key)
	if err != nil {
		return fmt.Errorf("load the service's certificate: %w", err)
	}
	authorities, err := loadAuthorities(t.files.ClientCA)
	if err != nil {
		return fmt.Errorf("read client CA: %w", err)
	}
	roots := x509.NewCertPool()
	for _, ca := range authorities {
		roots.AddCert(ca)
	}
	s := new(tlsState)
	if s.revoked, err = loadCRLs(t.files.CRL, authorities); err != nil {
		return fmt.Errorf("read revocation list: %w", err)
	}
	s.config = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    roots,
		NextProtos:   []string{"h2", "http/1.1"},
		Time:         t.now,
		// VerifyConnection also runs for resumed sessions, which skip the verification of the
		// chain.
		VerifyConnection:       func(c tls.ConnectionState) error { return s.revoked.check(c.VerifiedChains, t.now()) },
		SessionTicketsDisabled: true, // so that each connection checks the certificate
	}
	t.state.Store(s)
	return nil
}

// Config returns the TLS config of a listener. It follows each Reload.
func (t *TLS) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return t.state.Load().config, nil
		},
	}
}

// loadAuthorities reads the certificates of a PEM file.
func loadAuthorities(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no certificate", path)
	}
	return out, nil
}
