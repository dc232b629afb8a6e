package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/server"
)

// listen opens the listeners of the config. The files are nil where none is over TCP.
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
		return nil, usagef("server.tls must have certificate, key and client_ca: over TCP callers are known by their certificates")
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

// listenUnix makes a socket at path. One that a process left behind is removed. Anybody may
// connect whom the folder lets through: who it is, the kernel says.
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

// firstSocket is the number of the first file that systemd hands over (sd_listen_fds(3)).
const firstSocket = 3

// errNoSocket reports a socket that systemd did not hand over.
var errNoSocket = errors.New("systemd handed over no socket of that FileDescriptorName")

// listenSystemd takes the socket with a name that systemd handed over (sd_listen_fds(3)).
func listenSystemd(name string) (net.Listener, error) {
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	i := slices.Index(names, name)
	if err != nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || i < 0 || i >= n {
		return nil, errNoSocket
	}
	f := os.NewFile(uintptr(firstSocket+i), name)
	defer f.Close() // the listener has a copy
	return net.FileListener(f)
}

// notifySystemd tells systemd how the service is (sd_notify(3)), where it asked for it. That
// nobody hears it is no reason to stop.
func notifySystemd(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if after, abstract := strings.CutPrefix(path, "@"); abstract {
		path = "\x00" + after
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
