package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Limits for one file. A key package has a few hundred bytes, one with a long
// certificate chain has a few thousand; a Welcome may have the ratchet tree of its
// group, a few hundred bytes for each member.
const (
	maxKeyPackageBytes = 1 << 20
	maxWelcomeBytes    = 16 << 20
)

// errNotKeyPackage reports input that is not a key package in any of the
// supported forms.
var errNotKeyPackage = errors.New("not a key package")

// encodedKeyPackage is a key package as it was read from a file or a pipe.
type encodedKeyPackage struct {
	Source   string // the file's name, or "-"
	Encoding string // raw, hex or base64
	Framing  string // MLSMessage or KeyPackage
	*keypackage.KeyPackage
}

// readKeyPackage reads a key package from the file called name, or from
// standard input if name is "-".
func readKeyPackage(u *ui, name string) (*encodedKeyPackage, error) {
	data, err := readInput(u, name, maxKeyPackageBytes)
	if err != nil {
		return nil, err
	}
	kp, err := decodeKeyPackage(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	kp.Source = name
	return kp, nil
}

// openInput opens a file, or standard input if its name is "-".
func openInput(u *ui, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(u.in), nil
	}
	return os.Open(name)
}

// readInput reads at most limit bytes from the file called name, or from standard
// input if name is "-".
func readInput(u *ui, name string, limit int64) ([]byte, error) {
	in, err := openInput(u, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, err // the error names the file
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: it has more than %d bytes", name, limit)
	}
	return data, nil
}

// decodeKeyPackage decodes an MLSMessage or a bare KeyPackage, as raw bytes,
// hexadecimal or base64. Raw bytes begin with the byte 0 of the version; text
// does not.
func decodeKeyPackage(data []byte) (*encodedKeyPackage, error) {
	raw, encoding, err := decodeText(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotKeyPackage, err)
	}
	kp, framing, err := parseKeyPackage(raw)
	if err != nil {
		return nil, err
	}
	return &encodedKeyPackage{Encoding: encoding, Framing: framing, KeyPackage: kp}, nil
}

// decodeText decodes hexadecimal or base64, and returns the name of the encoding.
// Data that begins with the byte 0 is raw.
func decodeText(data []byte) (raw []byte, encoding string, err error) {
	text := bytes.Join(bytes.Fields(data), nil)
	switch {
	case len(text) == 0:
		return nil, "", errors.New("it is empty")
	case data[0] == 0:
		return data, "raw", nil
	case isHex(text):
		raw, _ = hex.DecodeString(string(text))
		return raw, "hex", nil
	}
	raw, ok := decodeBase64(text)
	if !ok {
		return nil, "", errors.New("it is neither raw bytes nor hexadecimal nor base64")
	}
	return raw, "base64", nil
}

// parseKeyPackage tries the MLSMessage first: a bare KeyPackage of suite 5
// begins with the same four bytes as an MLSMessage that holds a KeyPackage.
func parseKeyPackage(raw []byte) (*keypackage.KeyPackage, string, error) {
	message, messageErr := keypackage.ParseMessage(raw)
	if messageErr == nil && message.KeyPackage != nil {
		return message.KeyPackage, "MLSMessage", nil
	}
	kp, err := keypackage.Parse(raw)
	if err == nil {
		return kp, "KeyPackage", nil
	}
	if messageErr == nil {
		return nil, "", fmt.Errorf("%w: it is an MLSMessage that holds %v", errNotKeyPackage, message.WireFormat)
	}
	if bytes.HasPrefix(raw, []byte{0, 1, 0, 5}) {
		err = messageErr
	}
	return nil, "", fmt.Errorf("%w: %w", errNotKeyPackage, err)
}

func isHex(text []byte) bool {
	if len(text)%2 != 0 {
		return false
	}
	for _, c := range text {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// decodeBase64 accepts the standard and the URL alphabet, padded or not.
func decodeBase64(text []byte) ([]byte, bool) {
	text = bytes.TrimRight(text, "=")
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := e.DecodeString(string(text)); err == nil {
			return raw, true
		}
	}
	return nil, false
}
