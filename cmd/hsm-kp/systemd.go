package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/token"
)

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

// notifySystemd sends the state of the service to systemd (sd_notify(3)) if systemd asked for
// it. It ignores failures: the service works without notifications.
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

// keepWatch notifies systemd that the service is alive, twice in each watchdog period
// (sd_watchdog_enabled(3)), until ctx ends. It stops if the PKCS#11 module is stuck: a call that
// does not return ends only with the process, and systemd starts another. It continues if the
// token or the store cannot be reached.
func (e *env) keepWatch(ctx context.Context, log *slog.Logger) {
	every, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 63)
	pid := os.Getenv("WATCHDOG_PID")
	if err != nil || every == 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	tick := time.NewTicker(time.Duration(every) * time.Microsecond / 2)
	defer tick.Stop()
	for {
		if err := e.ready(ctx); errors.Is(err, token.ErrStuck) {
			log.Error("stop notifying the systemd watchdog", "error", err)
			return
		}
		notifySystemd("WATCHDOG=1")
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
