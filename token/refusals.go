package token

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// Refusals remember the PINs that tokens have refused beyond the end of a process: a service that
// is started again and again must not lock its token. Implementations are safe for use by several
// processes.
type Refusals interface {
	// Refused reports whether the token of that serial number has refused the PIN.
	Refused(serial string, pin PIN) (bool, error)
	// Remember records that it has.
	Remember(serial string, pin PIN) error
	// Forget deletes what is known of a token: it took a PIN.
	Forget(serial string) error
}

// RefusalFile remembers in the file at path, of mode 0600. The file has hashes by Argon2id under
// a salt for each token, because a refused PIN may be nearly the right one. It is created when a
// PIN is refused.
func RefusalFile(path string) Refusals { return refusalFile(path) }

type refusalFile string

// refusedPINs are the content of the file, in JSON.
type refusedPINs struct {
	Version int              `json:"version"` // 1
	Tokens  []refusedByToken `json:"tokens"`
}

type refusedByToken struct {
	Serial string    `json:"token_serial"`
	Salt   []byte    `json:"salt"`     // 16 bytes
	Hashes [][]byte  `json:"argon2id"` // 32 bytes each: 1 pass, 64 MiB, 1 thread
	At     time.Time `json:"last_refused"`
}

// maxRefused is how many refused PINs of a token are remembered; a token locks before.
const maxRefused = 16

func (t *refusedByToken) hash(pin PIN) []byte {
	return argon2.IDKey(pin.Reveal(), t.Salt, 1, 64<<10, 1, 32)
}

func (t *refusedByToken) has(hash []byte) bool {
	return slices.ContainsFunc(t.Hashes, func(h []byte) bool { return subtle.ConstantTimeCompare(h, hash) == 1 })
}

func (f refusalFile) read() (r refusedPINs, err error) {
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return refusedPINs{Version: 1}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && r.Version != 1 {
		err = fmt.Errorf("it has version %d", r.Version)
	}
	if err != nil {
		return r, fmt.Errorf("read refused PINs from %s: %w", string(f), err)
	}
	return r, nil
}

// find returns what is known of a token, or nil if that is nothing.
func (r *refusedPINs) find(serial string) *refusedByToken {
	i := slices.IndexFunc(r.Tokens, func(t refusedByToken) bool { return t.Serial == serial })
	if i < 0 {
		return nil
	}
	return &r.Tokens[i]
}

// Refused implements Refusals.
func (f refusalFile) Refused(serial string, pin PIN) (bool, error) {
	r, err := f.read()
	if err != nil {
		return false, err
	}
	t := r.find(serial)
	return t != nil && t.has(t.hash(pin)), nil
}

// Remember implements Refusals.
func (f refusalFile) Remember(serial string, pin PIN) error {
	r, err := f.read()
	if err != nil {
		return err
	}
	t := r.find(serial)
	if t == nil {
		salt := make([]byte, 16)
		rand.Read(salt) // never fails
		r.Tokens = append(r.Tokens, refusedByToken{Serial: serial, Salt: salt})
		t = &r.Tokens[len(r.Tokens)-1]
	}
	if hash := t.hash(pin); !t.has(hash) {
		t.Hashes = append(t.Hashes, hash)
	}
	t.Hashes = t.Hashes[max(len(t.Hashes)-maxRefused, 0):]
	t.At = time.Now().UTC().Truncate(time.Second)
	return f.write(r)
}

// Forget implements Refusals.
func (f refusalFile) Forget(serial string) error {
	r, err := f.read()
	if err != nil || r.find(serial) == nil {
		return err
	}
	r.Tokens = slices.DeleteFunc(r.Tokens, func(t refusedByToken) bool { return t.Serial == serial })
	if len(r.Tokens) > 0 {
		return f.write(r)
	}
	if err := os.Remove(string(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget refused PINs: %w", err)
	}
	return nil
}

// write replaces the file. If two processes do so at once, the PIN of one may be forgotten: it is
// remembered when it is refused again.
func (f refusalFile) write(r refusedPINs) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("remember refused PINs: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(string(f)), ".hsm-kp-refused-*") // mode 0600
	if err != nil {
		return fmt.Errorf("remember refused PINs: %w", err)
	}
	_, err = tmp.Write(append(text, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), string(f))
	}
	if err != nil {
		return fmt.Errorf("remember refused PINs: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// engineRefusals are Refusals for the engine.
type engineRefusals struct{ to Refusals }

func (r engineRefusals) Refused(serial string, pin engine.PIN) (bool, error) {
	return r.to.Refused(serial, PIN{pin})
}

func (r engineRefusals) Remember(serial string, pin engine.PIN) error {
	return r.to.Remember(serial, PIN{pin})
}

func (r engineRefusals) Forget(serial string) error { return r.to.Forget(serial) }
