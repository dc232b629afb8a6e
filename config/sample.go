package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strconv"
	"text/template"
	"unicode/utf8"
)

//go:embed sample.yaml.tmpl
var sampleText string

var sample = template.Must(template.New("sample").Parse(sampleText))

// SoftHSM holds what `init --softhsm` fills into a new config file.
type SoftHSM struct {
	Module string // path of SoftHSM's PKCS#11 library
	Label  string // of the token
	Conf   string // path of softhsm2.conf
	PIN    string // path of the PIN file
	Store  string // path of the store
}

// fields are the placeholders of the sample, each a YAML scalar.
type fields struct {
	Module, Label, PIN, Conf, Store string
	Sessions                        int
}

// Sample returns a config file with every field, its unit and its default.
func Sample() []byte {
	return render(fields{
		Module:   "/usr/lib/softhsm/libsofthsm2.so",
		Label:    "mls-prod",
		PIN:      "pin",
		Store:    "sqlite:hsm-kp.db",
		Sessions: Default().Token.Sessions,
	})
}

// WriteSoftHSM writes a commented config for a private SoftHSM token to a new file at path, which
// must not exist. It fails if a path is not UTF-8, as YAML is Unicode.
func WriteSoftHSM(path string, s SoftHSM) error {
	for _, v := range []string{s.Module, s.Label, s.Conf, s.PIN, s.Store} {
		if !utf8.ValidString(v) {
			return fmt.Errorf("write config %s: %q is not UTF-8", path, v)
		}
	}
	text := render(fields{
		Module:   strconv.Quote(s.Module),
		Label:    strconv.Quote(s.Label),
		PIN:      strconv.Quote(s.PIN),
		Conf:     strconv.Quote(s.Conf),
		Store:    strconv.Quote("sqlite:" + s.Store),
		Sessions: Default().Token.Sessions,
	})
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

func render(f fields) []byte {
	var b bytes.Buffer
	if err := sample.Execute(&b, f); err != nil {
		panic(err) // the template and its fields are constant
	}
	return b.Bytes()
}
