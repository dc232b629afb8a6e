package integrations

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
)

// recorder forwards connections of a Unix socket to another one, and records the answers.
type recorder struct {
	mu   sync.Mutex
	back bytes.Buffer
}

func newRecorder(t *testing.T, at, to string) *recorder {
	t.Helper()
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := new(recorder)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(c, to)
		}
	}()
	return r
}

func (r *recorder) pass(c net.Conn, to string) {
	defer c.Close()
	d, err := net.Dial("unix", to)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(d, c)
		d.Close()
	}()
	_, _ = io.Copy(io.MultiWriter(c, r), d)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.back.Write(p)
}

func (r *recorder) answers() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.back.Bytes())
}

var (
	base64Text = regexp.MustCompile(`[A-Za-z0-9+/_-]{20,}`)
	hexText    = regexp.MustCompile(`[0-9A-Fa-f]{32,}`)
)

// forms returns data itself, and the decoded form of each text in base64 or hexadecimal in it.
func forms(data []byte) [][]byte {
	all := [][]byte{data}
	for _, text := range base64Text.FindAll(data, -1) {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if b, err := e.DecodeString(string(text)); err == nil {
				all = append(all, b)
			}
		}
	}
	for _, text := range hexText.FindAll(data, -1) {
		if b, err := hex.DecodeString(string(text[:len(text)&^1])); err == nil {
			all = append(all, b)
		}
	}
	return all
}

// Without this test, the search could pass because it is faulty.
func TestTheSearchFindsAKey(t *testing.T) {
	key := bytes.Repeat([]byte{0xFB, 1, 2}, 11)
	for name, hay := range map[string]string{
		"raw":         "HTTP/1.1 200 OK\r\n\r\n\x0a\x21" + string(key),
		"base64":      `{"plaintext":"` + base64.StdEncoding.EncodeToString(append([]byte{0x20}, key...)) + `"}`,
		"base64url":   `{"plaintext":"` + base64.URLEncoding.EncodeToString(key) + `"}`,
		"hexadecimal": `{"key":"` + hex.EncodeToString(key) + `"}`,
	} {
		found := false
		for _, form := range forms([]byte(hay)) {
			found = found || bytes.Contains(form, key)
		}
		if !found {
			t.Errorf("%s: not found in %q", name, hay)
		}
	}
}
