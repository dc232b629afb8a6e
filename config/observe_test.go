package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// with parses a config that has more than a token.
func with(t *testing.T, more string) (*Config, string) {
	t.Helper()
	c, err := Parse(strings.NewReader("token: {module: m.so, label: t, pin: {prompt: true}}\n"+more), "/d")
	if err != nil {
		return nil, err.Error()
	}
	return c, ""
}

func TestOnlyThisMachineIsServedWithoutACertificate(t *testing.T) {
	c, fault := with(t, `server: {observe: {listen: ["unix:o.sock", "tcp:127.0.0.1:9464", "tcp:127.1.2.3:1", "tcp:[::1]:9464"]}}`)
	if want := []string{"unix:/d/o.sock", "tcp:127.0.0.1:9464", "tcp:127.1.2.3:1", "tcp:[::1]:9464"}; fault != "" || !slices.Equal(c.Server.Observe.Listen, want) {
		t.Errorf("Parse() = %v, %q, want %q", c, fault, want)
	}
	for _, listen := range []string{
		"tcp:0.0.0.0:9464", "tcp::9464", "tcp:[::]:9464", "tcp:10.0.0.1:9464", "tcp:localhost:9464", "tcp:127.0.0.1", "tcp:127.0.0.1:",
		"tcp:127.0.0.1.example.com:1", "tcp:[::ffff:10.0.0.1]:1", "systemd:observe", "unix:", "127.0.0.1:9464", "",
	} {
		_, fault := with(t, fmt.Sprintf("server: {observe: {listen: [%q]}}", listen))
		if !strings.Contains(fault, "server.observe.listen") || !strings.Contains(fault, "loopback") {
			t.Errorf("listen %q: fault = %q, want one that says loopback", listen, fault)
		}
	}
}

func TestPagesAreOfAllIdentities(t *testing.T) {
	const caller = "server: {callers: {watch: {uids: [7], identities: [%s], operations: [%s]}}}"
	for _, op := range []string{"metrics", "status"} {
		if _, fault := with(t, fmt.Sprintf(caller, `relay-*, "*"`, op)); fault != "" {
			t.Errorf("%s on *: %s", op, fault)
		}
		if _, fault := with(t, fmt.Sprintf(caller, "relay-*", op)); !strings.Contains(fault, "server.callers.watch.identities") {
			t.Errorf("%s on relay-*: fault = %q, want one about identities", op, fault)
		}
	}
	if _, fault := with(t, "server: {observe: {interval: 0s}}"); !strings.Contains(fault, "server.observe.interval") {
		t.Errorf("interval 0s: fault = %q", fault)
	}
}
