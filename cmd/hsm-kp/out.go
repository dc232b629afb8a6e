package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/store"
)

// outFolder receives public parts, each an MLSMessage in a file that is named
// for its KeyPackageRef.
type outFolder struct{ path string }

// openOutFolder makes the folder where it is missing and tries to write there,
// so that a folder that takes nothing is found before a key is made.
func openOutFolder(path string) (*outFolder, error) {
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
	return &outFolder{path}, nil
}

// temporary is the name of a file that is being written.
const temporary = ".hsm-kp-*.tmp"

// sweep removes temporary files that a killed run left behind. Those of a run
// that goes on are younger.
func sweep(path string) error {
	old, err := filepath.Glob(filepath.Join(globEscape(path), temporary))
	if err != nil {
		return err
	}
	var faults []error
	for _, name := range old {
		info, err := os.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < time.Hour {
			continue // gone already, not ours, or in use
		}
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// globEscape quotes what filepath.Glob would take for a pattern.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// writeAll puts the public parts of records into the folder and returns the
// names of the files. When it returns, all of them are on the disk. A reader of
// the folder sees a whole file or none; where a record is at fault, it sees none.
func (o *outFolder) writeAll(records []store.KeyPackage) ([]string, error) {
	names, messages := make([]string, len(records)), make([][]byte, len(records))
	for i := range records {
		kp, err := inventory.Public(&records[i])
		if err != nil {
			return nil, err
		}
		names[i] = filepath.Join(o.path, hex.EncodeToString(records[i].Ref)+".mls")
		messages[i] = kp.Message()
	}
	for i := range names {
		if err := replaceFile(names[i], messages[i], 0o644); err != nil {
			return nil, fmt.Errorf("write key package: %w", err)
		}
	}
	return names, o.sync()
}

// sync makes the names in the folder durable.
func (o *outFolder) sync() error {
	dir, err := os.Open(o.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync output folder: %w", err)
	}
	return nil
}

// replaceFile writes a file under a temporary name and renames it, and leaves
// nothing behind when it fails.
func replaceFile(name string, data []byte, mode fs.FileMode) (err error) {
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
	if err := f.Sync(); err != nil { // before the name: a name without content is no whole file
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// bare takes the name of a temporary file, which means nothing to a person,
// out of err.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", filepath.Dir(path.Path), path.Err)
	}
	var link *os.LinkError // of a rename
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}
