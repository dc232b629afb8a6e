package program

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Copy copies the installation. It changes the absolute paths in the configs of SoftHSM and hsm-kp.
func (i *Installation) Copy(t testing.TB) *Installation {
	t.Helper()
	c := &Installation{t: t, bin: i.bin, config: i.config, Dir: filepath.Join(t.TempDir(), "kp")}
	i.CopyTo(t, c.Dir)
	return c
}

// CopyTo copies the installation to a folder that does not exist yet.
func (i *Installation) CopyTo(t testing.TB, dir string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", i.Dir, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the installation: %v: %s", err, out)
	}
	for _, name := range []string{i.config, "softhsm2.conf"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte(i.Dir), []byte(dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Edit replaces a text in the config.
func (i *Installation) Edit(before, after string) {
	i.t.Helper()
	path := i.ConfigPath()
	text, err := os.ReadFile(path)
	if err != nil {
		i.t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte(before), []byte(after), 1)
	if bytes.Equal(changed, text) {
		i.t.Fatalf("the config has no %q", before)
	}
	if err := os.WriteFile(path, changed, 0o644); err != nil {
		i.t.Fatal(err)
	}
}

// Append adds a group of keys at the end of the config.
func (i *Installation) Append(group string) {
	i.t.Helper()
	f, err := os.OpenFile(i.ConfigPath(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		i.t.Fatal(err)
	}
	_, err = f.WriteString("\n" + group + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		i.t.Fatal(err)
	}
}

// Opened is an installation that the test has opened in its own process.
type Opened struct {
	Store     store.Store
	Token     *token.Token
	Inventory *inventory.Inventory
}

// oneSoftHSM is held while this process has a SoftHSM open: SoftHSM knows one configuration at a
// time.
var oneSoftHSM sync.Mutex

// Open opens store and token in this process and calls f. Only one installation is open at a time.
func (i *Installation) Open(f func(*Opened)) error {
	ctx := context.Background()
	t, done, err := i.OpenToken(ctx, nil)
	if err != nil {
		return err
	}
	defer done()
	db, err := i.OpenStore(ctx)
	if err != nil {
		return err
	}
	inv := inventory.New(inventory.Config{Store: db, Ring: ring{t}, Rand: rand.Reader, Workers: 8, Batch: 100})
	f(&Opened{db, t, inv})
	return db.Close()
}

// OpenToken opens the token in this process, with the given changes of its config, until done is
// called. Only one is open at a time.
func (i *Installation) OpenToken(ctx context.Context, change func(*token.Config)) (t *token.Token, done func(), err error) {
	oneSoftHSM.Lock()
	defer func() {
		if err != nil {
			oneSoftHSM.Unlock()
		}
	}()
	s, err := softhsm.Load(i.Dir)
	if err != nil {
		return nil, nil, err
	}
	cfg := s.Config()
	if change != nil {
		change(&cfg)
	}
	if t, err = s.Open(ctx, cfg); err != nil {
		return nil, nil, err
	}
	return t, func() { t.Close(); oneSoftHSM.Unlock() }, nil
}

// OpenStore opens the store that the config names, in this process.
func (i *Installation) OpenStore(ctx context.Context) (s store.Store, err error) {
	c, err := config.Load(i.ConfigPath())
	if err != nil {
		return nil, err
	}
	if postgres.Names(c.Store.URL) {
		s, err = postgres.Open(ctx, c.Store.URL, postgres.Options{})
	} else {
		s, err = sqlite.Open(ctx, strings.TrimPrefix(c.Store.URL, "sqlite:"), sqlite.Options{})
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// ring implements the inventory's Ring with a token.
type ring struct{ token *token.Token }

func (r ring) Open(ctx context.Context, id vault.KeyID, m vault.Mechanism) (vault.Custodian, error) {
	return vault.OpenBy(ctx, r.token, m, id)
}

func (r ring) Create(context.Context, vault.KeyID, vault.Mechanism, string) ([]byte, error) {
	return nil, errors.New("a test makes no keys")
}

func (r ring) Destroy(context.Context, store.Object, []byte) error {
	return errors.New("a test destroys no keys")
}

func (r ring) Discard(context.Context, vault.KeyID, string) error {
	return errors.New("a test destroys no keys")
}

func (r ring) Serial() string { return r.token.Info().Serial }
