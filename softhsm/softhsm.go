// Package softhsm makes and opens private SoftHSM tokens, for evaluation and tests. Each
// has a folder of its own. SoftHSM keeps its keys in files: it does not protect them
// from anyone who can read the folder and the PIN in it.
//
// The Example of package signer makes and opens one.
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

// ErrUnfinished: the folder has part of a token, because Create was killed.
var ErrUnfinished = errors.New("folder has an unfinished SoftHSM token")

// ErrInUse: this process has a token of another SoftHSM folder open. SoftHSM reads its
// configuration when it is initialized and has one a process, so tokens of two folders
// cannot be open at once.
var ErrInUse = errors.New("SoftHSM is in use with another configuration")

// Names of what Create makes in the folder.
const (
	confName   = "softhsm2.conf"
	tokensName = "tokens"
	pinName    = "pin"
	soPINName  = "so-pin"
	recordName = "softhsm.json"
)

// Options are the options of Create. The zero value is ready for use.
type Options struct {
	Label  string // of the token, at most 32 bytes; "" means "hsm-kp"
	Module string // path of SoftHSM's library; "" means the one that FindModule returns
}

// Installation is a folder with a SoftHSM token. Its paths are absolute, as SoftHSM
// needs them, so the folder cannot be moved. Methods may be called by several goroutines
// at once.
type Installation struct {
	Dir       string
	Module    string // path of the PKCS#11 library
	ConfPath  string // SoftHSM's configuration, mode 0600
	PINPath   string // the user's PIN, mode 0600
	SOPINPath string // the security officer's PIN, mode 0600
	Label     string // of the token
	Serial    string // of the token
}

// Environ returns the environment variables that the module needs, for the environment
// of another process.
func (i *Installation) Environ() map[string]string {
	return map[string]string{confVariable: i.ConfPath}
}

// Setenv sets the variables of Environ in this process, for a program that opens the
// token by token.Open. The module reads them when the first of its tokens is opened. A
// program that uses Open does not need it.
func (i *Installation) Setenv() error { return os.Setenv(confVariable, i.ConfPath) }

// Config returns a token.Config with the module, the serial number and the source of the
// PIN, for token.Open. See Open, which also sets the environment.
func (i *Installation) Config() token.Config {
	return token.Config{Module: i.Module, Serial: i.Serial, PIN: token.File(i.PINPath)}
}

// Create makes a token in dir, and dir if it does not exist, and returns its
// Installation. The user's PIN and the security officer's have 26 random characters (130 bits) each and are in files of their
// own. After an error nothing is left but dir itself.
//
// The error wraps ErrExists, ErrNotInstalled, ErrInUse if this process has a token of
// another folder open, or is that of the file system or of the token. Create may be
// called by several goroutines at once.
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

// plan returns the installation as far as it is known before the token is made.
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

// claim makes the folder for the objects and the configuration that names it. It fails
// if the folder exists.
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

// initToken makes the token, with SOFTHSM2_CONF set while it does.
func (i *Installation) initToken(ctx context.Context, soPIN, pin token.PIN) (err error) {
	environment.Lock()
	defer environment.Unlock()
	restore, err := useEnvironment(i.ConfPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	tokens, err := token.List(ctx, i.Module, token.Quirks{})
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Initialized { // in another folder: this one has no token yet
			return ErrInUse
		}
	}
	info, err := token.InitToken(ctx, i.Module, i.Label, soPIN, pin)
	i.Serial = info.Serial
	return err
}

// made lists what create has made so far. After an error, that is removed and nothing
// else in the folder.
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

// write makes a file, for its owner only, and waits until it is on the disk. It fails if
// the file exists.
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

// Load returns the Installation that Create made in dir. It reads the record that
// Create wrote and does not look at the token itself. The error wraps ErrUnfinished if
// Create was killed in dir, fs.ErrNotExist if there is no token in dir.
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
