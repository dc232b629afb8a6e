package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
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
	config *tls.Config
	lists  []*x509.RevocationList
}

// Errors about a client's certificate.
var (
	errRevoked  = errors.New("the client's certificate is revoked")
	errStaleCRL = errors.New("the revocation list of the client's issuer is out of date")
)

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
	roots := x509.NewCertPool()
	text, err := os.ReadFile(t.files.ClientCA)
	if err != nil {
		return fmt.Errorf("read client CA: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("read client CA: %s has no certificate", t.files.ClientCA)
	}
	lists, err := loadCRLs(t.files.CRL)
	if err != nil {
		return err
	}
	s := &tlsState{lists: lists}
	s.config = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    roots,
		NextProtos:   []string{"h2", "http/1.1"},
		Time:         t.now,
		// VerifyConnection also runs for resumed sessions, which skip the verification of the
		// chain.
		VerifyConnection:       func(c tls.ConnectionState) error { return s.check(c, t.now()) },
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

// check looks up a client's certificates in the revocation lists of their issuers. A chain is good
// if none of its certificates is revoked; one good chain is enough.
func (s *tlsState) check(c tls.ConnectionState, now time.Time) error {
	if len(s.lists) == 0 {
		return nil
	}
	var fault error
	for _, chain := range c.VerifiedChains {
		if fault = s.checkChain(chain, now); fault == nil {
			return nil
		}
	}
	return fault
}

func (s *tlsState) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i := range len(chain) - 1 {
		for _, list := range s.lists {
			if err := checkList(list, chain[i], chain[i+1], now); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkList looks up a certificate in a list, if the list is its issuer's.
func checkList(list *x509.RevocationList, c, issuer *x509.Certificate, now time.Time) error {
	if !bytes.Equal(list.RawIssuer, issuer.RawSubject) || list.CheckSignatureFrom(issuer) != nil {
		return nil
	}
	if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
		return errStaleCRL
	}
	if slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 }) {
		return errRevoked
	}
	return nil
}

// loadCRLs reads the revocation lists of a file.
func loadCRLs(path string) ([]*x509.RevocationList, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read revocation list: %w", err)
	}
	var lists []*x509.RevocationList
	for _, der := range derOf(data) {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("read revocation list %s: %w", path, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// derOf returns the contents of data's PEM blocks, or data itself if it has none.
func derOf(data []byte) [][]byte {
	var out [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		out = append(out, block.Bytes)
	}
	if len(out) == 0 {
		return [][]byte{data}
	}
	return out
}
