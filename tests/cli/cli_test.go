// Package cli runs the hsm-kp program as people do: each script under testdata
// is a session with its own folder, its own SoftHSM token and its own store,
// and asserts the output, the files on disk and the exit status.
package cli

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

func TestScripts(t *testing.T) {
	program.RequireSoftHSM(t)
	p := params(t, program.Build(t))
	p.Dir = filepath.Join("testdata", "script")
	testscript.Run(t, p)
}

// params returns the parameters of every script, with the program in the folder bin.
func params(t *testing.T, bin string) testscript.Params {
	t.Helper()
	tinyFSWorks := canMount(t)
	return testscript.Params{
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("SOFTHSM2_MODULE", os.Getenv("SOFTHSM2_MODULE"))
			e.Values[directoryKey{}] = new(*directorytest.Server)
			return nil
		},
		Cmds: commands(t),
		Condition: func(name string) (bool, error) {
			if name == "tinyfs" {
				return tinyFSWorks, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		RequireUniqueNames: true,
	}
}

// commands returns the commands that scripts have in addition to testscript's own.
func commands(t *testing.T) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"exits":      exits,
		"holddb":     holdDB,
		"sql":        runSQL,
		"flip":       flip,
		"tinyfs":     tinyFS,
		"truncate":   truncate,
		"mode":       mode,
		"lines":      lines,
		"glob":       glob,
		"welcome":    welcomeFor(t),
		"pathsecret": pathSecret,
		"postgres":   postgresDatabase(t),
		"directory":  directory,

		"devicekey":   deviceKey,
		"deviceopens": deviceOpens,
	}
}

// exits N COMMAND... runs a command that must end with status N.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARGUMENT]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// postgresDatabase makes the command postgres NAME, which makes a database and puts its URL in
// the variable NAME.
func postgresDatabase(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: postgres NAME")
		}
		ts.Setenv(args[0], postgrestest.Shared(t).Database(t))
	}
}

// holdDB FILE locks a database for writing until the script ends.
func holdDB(ts *testscript.TestScript, neg bool, args []string) {
	db := open(ts, args[0])
	ts.Defer(func() { db.Close() })
	db.SetMaxOpenConns(1) // the transaction needs one connection
	_, err := db.Exec("BEGIN EXCLUSIVE")
	ts.Check(err)
}

// runSQL FILE STATEMENT changes a database without the program.
func runSQL(ts *testscript.TestScript, neg bool, args []string) {
	db := open(ts, args[0])
	defer db.Close()
	_, err := db.Exec(args[1])
	ts.Check(err)
}

func open(ts *testscript.TestScript, file string) *sql.DB {
	db, err := sql.Open("sqlite3", "file:"+ts.MkAbs(file))
	ts.Check(err)
	return db
}

// flip FILE OFFSET inverts a byte; a negative offset counts from the end.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	file := ts.MkAbs(args[0])
	data, err := os.ReadFile(file)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	data[at] ^= 0xFF
	ts.Check(os.WriteFile(file, data, 0o644))
}

// truncate FILE N cuts a file to N bytes.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}

// mode FILE OCTAL asserts the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("mode of %s = %s, want %s", args[0], got, args[1])
	}
}

// lines N asserts how many lines the last command printed to stdout.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := strings.Count(ts.ReadFile("stdout"), "\n"); got != want {
		ts.Fatalf("stdout has %d lines, want %d", got, want)
	}
}

// glob N PATTERN [NAME] asserts how many files match a pattern, and puts the first one's name into
// the variable NAME.
func glob(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	files, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(files) != want {
		ts.Fatalf("%d files fit %s, want %d", len(files), args[1], want)
	}
	if len(args) > 2 {
		ts.Setenv(args[2], files[0])
	}
}

// welcomeFor returns the command welcome OUT KEYPACKAGE..., which writes the Welcome of a new group
// that adds the clients of the key packages. With psk as the first argument, the group needs a
// pre-shared key with the id "token".
func welcomeFor(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		psk := args[0] == "psk"
		if psk {
			args = args[1:]
		}
		var kps []*keypackage.KeyPackage
		for _, name := range args[1:] {
			m, err := keypackage.ParseMessage([]byte(ts.ReadFile(name)))
			ts.Check(err)
			kps = append(kps, m.KeyPackage)
		}
		suite, ok := ciphersuite.Lookup(kps[0].CipherSuite)
		if !ok {
			ts.Fatalf("unknown suite %v", kps[0].CipherSuite)
		}
		g := welcometest.NewGroup(t, suite)
		if psk {
			g.PSKs = []byte("\x01\x05token\x05nonce")
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), g.Welcome(kps...).Message(), 0o644))
	}
}

// pathSecret OUT CONTEXT KEYPACKAGE TEXT writes TEXT as a path secret that a member of a group
// encrypted to the leaf of a key package: an HPKECiphertext (RFC 9420, Section 7.6) under the
// GroupContext in the file CONTEXT.
func pathSecret(ts *testscript.TestScript, neg bool, args []string) {
	m, err := keypackage.ParseMessage([]byte(ts.ReadFile(args[2])))
	ts.Check(err)
	suite, ok := ciphersuite.Lookup(m.KeyPackage.CipherSuite)
	if !ok {
		ts.Fatalf("unknown suite %v", m.KeyPackage.CipherSuite)
	}
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(suite, m.KeyPackage.LeafNode.EncryptionKey, "UpdatePathNode", []byte(ts.ReadFile(args[1])), []byte(args[3]))
	ts.Check(err)
	out := wire.AppendVector(wire.AppendVector(nil, kemOutput), ciphertext)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out, 0o644))
}

// tinyFS DIR KIB mounts a file system of that many KiB at DIR until the script
// ends.
func tinyFS(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(mount(dir, args[1]))
	ts.Defer(func() { ts.Check(unmount(dir)) })
}

func mount(dir, kib string) error {
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+kib+"k", "tmpfs", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount %s: %w: %s", dir, err, out)
	}
	return nil
}

// unmount waits until no process of the script uses dir.
func unmount(dir string) error {
	var err error
	for range 600 {
		if err = exec.Command("umount", dir).Run(); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("umount %s: %w", dir, err)
}

// canMount reports whether this process may mount a small file system, which needs root. CI must be
// able to.
func canMount(t *testing.T) bool {
	t.Helper()
	dir := t.TempDir()
	err := mount(dir, "64")
	if err == nil {
		err = unmount(dir)
	}
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("scripts on a full disk need root: %v", err)
	}
	return err == nil
}
