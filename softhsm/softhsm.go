// Package softhsm makes private SoftHSM tokens: a folder with a token of its own
// for tests, the demo and evaluation. A SoftHSM keeps its keys in files, and is
// no protection against whoever can read them.
package softhsm

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hsm-kp/hsm-kp/token"
)

// ErrExists: the folder already has a token.
var ErrExists = errors.New("folder already has a SoftHSM token")

// ErrUnfinished: the folder has the beginnings of a token. Create was killed.
var ErrUnfinished = errors.New("folder has an unfinished SoftHSM token")

// ErrInUse: this process has tokens of another SoftHSM folder open. SoftHSM reads
// SOFTHSM2_CONF when it is initialised, so two folders are not open at once.
var ErrInUse = errors.New("SoftHSM is in use with another configuration")

// confVariable names the file that SoftHSM reads its configuration from.
const confVariable = "SOFTHSM2_CONF"

// Names of what Create makes in the folder.
const (
	confName   = "softhsm2.conf"
	tokensName = "tokens"
	pinName    = "pin"
	soPINName  = "so-pin"
	recordName = "softhsm.json"
)

// Options of Create.
type Options struct {
	Label  string // of the token, at most 32 bytes; empty: "hsm-kp"
	Module string // path of SoftHSM; empty: FindModule
}

// Installation is a folder with a SoftHSM token. Its paths are absolute: SoftHSM
// knows no others, so the folder cannot be moved.
type Installation struct {
	Dir       string
	Module    string // path of the PKCS#11 library
	ConfPath  string // SoftHSM's configuration, mode 0600
	PINPath   string // the user's PIN, mode 0600
	SOPINPath string // the security officer's PIN, mode 0600
	Label     string // of the token
	Serial    string // of the token
}

// Environ returns the environment variables that the module needs.
func (i *Installation) Environ() map[string]string {
	return map[string]string{confVariable: i.ConfPath}
}

// Setenv sets them in this process. The module reads them when the first of its
// tokens is opened.
func (i *Installation) Setenv() error { return os.Setenv(confVariable, i.ConfPath) }

// Config returns what token.Open needs, besides the environment.
func (i *Installation) Config() token.Config {
	return token.Config{Module: i.Module, Serial: i.Serial, PIN: token.File(i.PINPath)}
}

// Create makes a token in dir, which is made where it is missing. The PINs are 26
// random characters, 130 bits, in files of their own. Nothing stays behind after
// an error but dir itself. It is not for use while tokens of another folder are
// open in this process (ErrInUse).
//
// Errors: ErrExists, ErrInUse, ErrNotInstalled.
func Create(ctx context.Context, dir string, o Options) (*Installation, error) {
	i, err := plan(dir, o)
	if err != nil {
		return nil, fmt.Errorf("create SoftHSM token: %w", err)
	}
	if err := i.create(ctx); err != nil {
		return nil, fmt.Errorf("create SoftHSM token in %q: %w", i.Dir, err)
	}
	return i, nil
}

// plan fills in all that is known before the token is made.
func plan(dir string, o Options) (*Installation, error) {
	module := o.Module
	if module == "" {
		var err error
		if module, err = FindModule(); err != nil {
			return nil, err
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(abs, "#\n\r") {
		return nil, fmt.Errorf("folder %q: SoftHSM's configuration cannot name it", abs)
	}
	label := o.Label
	if label == "" {
		label = "hsm-kp"
	}
	return at(abs, module, label), nil
}

func at(dir, module, label string) *Installation {
	return &Installation{
		Dir:       dir,
		Module:    module,
		ConfPath:  filepath.Join(dir, confName),
		PINPath:   filepath.Join(dir, pinName),
		SOPINPath: filepath.Join(dir, soPINName),
		Label:     label,
	}
}

func (i *Installation) create(ctx context.Context) (err error) {
	if err := os.MkdirAll(i.Dir, 0o700); err != nil {
		return err
	}
	var made made
	defer func() {
		if err != nil {
			err = errors.Join(err, made.remove())
		}
	}()
	if err := i.claim(&made); err != nil {
		return err
	}
	soPIN, err := made.writePIN(i.SOPINPath)
	if err != nil {
		return err
	}
	defer soPIN.Clear()
	pin, err := made.writePIN(i.PINPath)
	if err != nil {
		return err
	}
	defer pin.Clear()
	if err := i.initToken(ctx, soPIN, pin); err != nil {
		return err
	}
	return i.writeRecord(&made)
}

// claim makes the folder for the objects, which fails where another has made it,
// and the configuration that names it.
func (i *Installation) claim(m *made) error {
	tokens := filepath.Join(i.Dir, tokensName)
	err := os.Mkdir(tokens, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	*m = append(*m, tokens)
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	return m.write(i.ConfPath, []byte(conf))
}

// initToken makes the token, with SOFTHSM2_CONF set for as long as it takes.
func (i *Installation) initToken(ctx context.Context, soPIN, pin token.PIN) (err error) {
	restore, err := swapEnv(confVariable, i.ConfPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	tokens, err := token.List(ctx, i.Module, token.Quirks{})
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Initialized { // not of the folder that was just made
			return ErrInUse
		}
	}
	info, err := token.InitToken(ctx, i.Module, i.Label, soPIN, pin)
	i.Serial = info.Serial
	return err
}

func swapEnv(name, value string) (restore func() error, err error) {
	before, was := os.LookupEnv(name)
	if err := os.Setenv(name, value); err != nil {
		return nil, err
	}
	return func() error {
		if was {
			return os.Setenv(name, before)
		}
		return os.Unsetenv(name)
	}, nil
}

// made is what create has made so far: after an error that is taken away, and
// nothing else that is in the folder.
type made []string

func (m made) remove() error {
	var errs []error
	for _, path := range slices.Backward(m) {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// writePIN draws a PIN and writes it to a file.
func (m *made) writePIN(path string) (token.PIN, error) {
	line := append([]byte(rand.Text()), '\n') // 26 characters of base32
	defer clear(line)
	if err := m.write(path, line); err != nil {
		return token.PIN{}, err
	}
	return token.NewPIN(line[:len(line)-1]), nil
}

// write writes a file that is not there yet, for its owner only, and waits until
// it is on the disk.
func (m *made) write(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	*m = append(*m, path)
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// record is what Load reads: the file softhsm.json, written last.
type record struct {
	Module string `json:"module"`
	Label  string `json:"label"`
	Serial string `json:"serial"`
}

func (i *Installation) writeRecord(m *made) error {
	b, err := json.MarshalIndent(record{i.Module, i.Label, i.Serial}, "", "  ")
	if err != nil {
		return err
	}
	return m.write(filepath.Join(i.Dir, recordName), append(b, '\n'))
}

// Load returns the token that Create made in dir. It reads the record of it; the
// token itself is not looked at. ErrUnfinished says that there is no record of one.
func Load(dir string) (*Installation, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("load SoftHSM token: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(abs, recordName))
	if errors.Is(err, fs.ErrNotExist) && exists(filepath.Join(abs, tokensName)) {
		return nil, fmt.Errorf("load SoftHSM token from %q: %w", abs, ErrUnfinished)
	}
	if err != nil {
		return nil, fmt.Errorf("load SoftHSM token: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("load SoftHSM token from %q: %w", filepath.Join(abs, recordName), err)
	}
	i := at(abs, r.Module, r.Label)
	i.Serial = r.Serial
	return i, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
