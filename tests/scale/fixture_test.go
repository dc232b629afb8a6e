// Package scale tests hsm-kp with many identities in one token: which calls of the token a command
// makes, and, with -identities and -shapes, how long things take compared with the token itself.
package scale

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// manifest writes a manifest of the devices numbered first to last, with keyPackages each, and
// returns its name.
func manifest(t *testing.T, first, last, keyPackages int) string {
	t.Helper()
	var lines bytes.Buffer
	for n := first; n <= last; n++ {
		fmt.Fprintf(&lines, "{\"name\": %q, \"count\": %d}\n", device(n), keyPackages)
	}
	path := filepath.Join(t.TempDir(), "devices.jsonl")
	if err := os.WriteFile(path, lines.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func device(n int) string { return fmt.Sprintf("device-%d", n) }

// timed runs a command and returns how long its process took.
func timed(i *program.Installation, args ...string) time.Duration {
	start := time.Now()
	i.Run(args...)
	return time.Since(start)
}

// serveOnce starts the service, waits until it is ready, and stops it.
func serveOnce(t *testing.T, i *program.Installation, socket string) {
	t.Helper()
	cmd := i.Command("serve")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("the service does not answer: %v\n%s", err, log.String())
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("serve: %v\n%s", err, log.String())
	}
}

// appendConfig appends to the config.
func appendConfig(t *testing.T, i *program.Installation, text string) {
	t.Helper()
	path := filepath.Join(i.Dir, "hsm-kp.yaml")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(b, text...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// table prints rows in columns of the same width.
func table(t *testing.T, title string, rows [][]string) {
	t.Helper()
	var out strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			format := "  %13s"
			if i == 0 {
				format = "%-42s"
			}
			fmt.Fprintf(&out, format, cell)
		}
		out.WriteString("\n")
	}
	t.Logf("%s\n%s", title, out.String())
}
