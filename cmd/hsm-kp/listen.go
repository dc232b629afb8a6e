package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/server"
)

// listen opens the listeners of the config. The files are nil if none is on TCP.
func listen(c *config.Server) ([]server.Listener, *server.TLS, error) {
	var files *server.TLS
	var out []server.Listener
	for _, where := range c.Listen {
		l, err := listenAt(where)
		if err == nil && l.Addr().Network() == "tcp" {
			if files == nil {
				files, err = openTLS(c)
			}
		}
		if err != nil {
			for _, open := range out {
				err = errors.Join(err, open.Close())
			}
			return nil, nil, fmt.Errorf("listen at %s: %w", where, err)
		}
		one := server.Listener{Listener: l}
		if l.Addr().Network() == "tcp" {
			one.TLS = files.Config()
		}
		out = append(out, one)
	}
	return out, files, nil
}

func openTLS(c *config.Server) (*server.TLS, error) {
	t := c.TLS
	if t.Certificate == "" || t.Key == "" || t.ClientCA == "" {
		return nil, usagef("server.tls must have certificate, key and client_ca: callers over TCP authenticate with certificates")
	}
	return server.OpenTLS(server.TLSFiles{Certificate: t.Certificate, Key: t.Key, ClientCA: t.ClientCA, CRL: t.CRL}, time.Now)
}

func listenAt(where string) (net.Listener, error) {
	kind, at, _ := strings.Cut(where, ":")
	switch kind {
	case "unix":
		return listenUnix(at)
	case "systemd":
		return listenSystemd(at)
	}
	return net.Listen("tcp", at)
}

// errSocketInUse reports a socket that another process serves.
var errSocketInUse = errors.New("another process serves there")

// listenUnix makes a socket at path, and removes one that a dead process left. Every user whom
// the permissions of the folder admit may connect; the kernel reports who the user is.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(errSocketInUse, c.Close())
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
