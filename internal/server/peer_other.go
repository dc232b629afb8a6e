//go:build !linux

package server

import (
	"errors"
	"net"
)

// peerOf fails: on this system, nothing reports who connected. Callers on a Unix socket are nobody,
// and are refused.
func peerOf(*net.UnixConn) (*Peer, error) { return nil, errors.ErrUnsupported }
