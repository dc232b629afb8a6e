package directory

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Spool is a folder of key packages, each an MLSMessage in a file that is named after its
// KeyPackageRef: REF.mls.
type Spool struct{ path string }

// OpenSpool makes the folder if it is missing and tries to write to it, so that an unusable folder
// is found before a key is made.
func OpenSpool(path string) (*Spool, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make output folder: %w", err)
	}
	probe, err := os.CreateTemp(path, temporary)
	if err != nil {
		return nil, fmt.Errorf("write to output folder: %w", bare(err))
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name()), sweep(path)); err != nil {
		return nil, fmt.Errorf("write to output folder: %w", err)
	}
	return &Spool{path}, nil
}

// Path returns the name of the folder.
func (s *Spool) Path() string { return s.path }

// Publish implements Publisher. When it returns, the items without an error are on the disk.
func (s *Spool) Publish(ctx context.Context, items []Item) []error {
	errs := make([]error, len(items))
	for i := range items {
		if errs[i] = ctx.Err(); errs[i] == nil {
			_, errs[i] = s.write(&items[i])
		}
	}
	if err := s.sync(); err != nil {
		for i := range errs {
			errs[i] = errors.Join(errs[i], err)
		}
	}
	return errs
}

// WriteAll writes key packages to the folder and returns the names of the files. When it returns,
// all of them are on the disk. A reader of the folder sees a whole file or none.
func (s *Spool) WriteAll(items []Item) ([]string, error) {
	names := make([]string, len(items))
	for i := range items {
		var err error
		if names[i], err = s.write(&items[i]); err != nil {
			return nil, fmt.Errorf("write key package: %w", err)
		}
	}
	return names, s.sync()
}

func (s *Spool) write(item *Item) (string, error) {
	name := filepath.Join(s.path, hex.EncodeToString(item.Ref)+".mls")
	return name, ReplaceFile(name, item.KeyPackage.Message(), 0o644)
}

// sync makes the names in the folder durable.
func (s *Spool) sync() error {
	dir, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync output folder: %w", err)
	}
	return nil
}

// temporary is the pattern of the names of files that are being written.
const temporary = ".hsm-kp-*.tmp"

// sweep removes temporary files that a killed run left behind. Those of a current run are younger.
func sweep(path string) error {
	old, err := filepath.Glob(filepath.Join(globEscape(path), temporary))
	if err != nil {
		return err
	}
	var faults []error
	for _, name := range old {
		info, err := os.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < time.Hour {
			continue // already gone, not from hsm-kp, or in use
		}
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// globEscape escapes what filepath.Glob would interpret as a pattern.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// ReplaceFile writes a file under a temporary name and renames it. It leaves nothing behind if it
// fails.
func ReplaceFile(name string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), temporary)
	if err != nil {
		return bare(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("%s: %w", name, bare(err))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil { // before the rename: a name must never refer to a file without its content
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// bare removes the name of a temporary file, which means nothing to a user, from err.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", filepath.Dir(path.Path), path.Err)
	}
	var link *os.LinkError // from a rename
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}
