package interop

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"testing"
)

// octets are bytes in hexadecimal on the wire.
type octets []byte

func (o octets) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(o)), nil }

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

// request is a line to a peer; peers/README.md describes each field.
type request struct {
	Op                   string `json:"op"`
	Suite                uint16 `json:"suite,omitempty"`
	KeyPackage           octets `json:"keyPackage,omitempty"`
	InitPrivateKey       octets `json:"initPrivateKey,omitempty"`
	EncryptionPrivateKey octets `json:"encryptionPrivateKey,omitempty"`
	SignaturePrivateKey  octets `json:"signaturePrivateKey,omitempty"`
	Welcome              octets `json:"welcome,omitempty"`
	RatchetTree          octets `json:"ratchetTree,omitempty"`
	Group                string `json:"group,omitempty"`
	Public               bool   `json:"public,omitempty"`
	Message              octets `json:"message,omitempty"`
	Data                 octets `json:"data,omitempty"`
	Device               string `json:"device,omitempty"`
	Enc                  octets `json:"enc,omitempty"`
	Ciphertext           octets `json:"ciphertext,omitempty"`
}

// reply is a line from a peer: an answer, or what it needs signed.
type reply struct {
	OK          bool   `json:"ok"`
	Error       string `json:"error"`
	Unsupported bool   `json:"unsupported"`
	Sign        octets `json:"sign"`

	Name    string   `json:"name"`
	Version string   `json:"version"`
	Suites  []uint16 `json:"suites"`
	Signer  string   `json:"signer"`
	Commits string   `json:"commits"`
	Notes   []string `json:"notes"`

	KeyPackage         octets `json:"keyPackage"`
	Welcome            octets `json:"welcome"`
	RatchetTree        octets `json:"ratchetTree"`
	Group              string `json:"group"`
	EpochAuthenticator octets `json:"epochAuthenticator"`
	Message            octets `json:"message"`
	Data               octets `json:"data"`

	Device               string `json:"device"`
	InitPrivateKey       octets `json:"initPrivateKey"`
	EncryptionPrivateKey octets `json:"encryptionPrivateKey"`
}

// errUnsupported reports what a peer's library cannot do.
var errUnsupported = errors.New("not possible")

// peer is a running peer.
type peer struct {
	hello reply
	in    io.Writer
	out   *bufio.Scanner
	// sign answers a peer whose member signs outside.
	sign func(suite uint16, signContent []byte) ([]byte, error)
}

// start runs a peer until the test ends.
func start(t *testing.T, command *exec.Cmd) *peer {
	t.Helper()
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = &prefixed{t: t}
	if err := command.Start(); err != nil {
		t.Fatalf("start %v: %v", command, err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("%v ended with %v, want nil at the end of its input", command, err)
		}
	})
	p := &peer{in: in, out: bufio.NewScanner(out)}
	p.out.Buffer(nil, 64<<20)
	if p.hello, err = p.call(request{Op: "hello"}); err != nil {
		t.Fatalf("hello of %v: %v", command, err)
	}
	return p
}

// external reports whether members of the peer sign outside.
func (p *peer) external() bool { return p.hello.Signer == "external" }

// call sends a request and waits for the reply, and signs on request meanwhile. A refusal is an error with
// the library's words.
func (p *peer) call(r request) (reply, error) {
	if err := p.write(r); err != nil {
		return reply{}, err
	}
	for {
		var got reply
		if !p.out.Scan() {
			return reply{}, fmt.Errorf("peer ended: %w", errors.Join(p.out.Err(), io.ErrUnexpectedEOF))
		}
		if err := json.Unmarshal(p.out.Bytes(), &got); err != nil {
			return reply{}, fmt.Errorf("peer wrote %q: %w", p.out.Bytes(), err)
		}
		switch {
		case got.Sign != nil:
			if err := p.write(p.signed(r.Suite, got.Sign)); err != nil {
				return reply{}, err
			}
		case got.OK:
			return got, nil
		case got.Unsupported:
			return reply{}, fmt.Errorf("%w: %s", errUnsupported, got.Error)
		default:
			return reply{}, errors.New(got.Error)
		}
	}
}

func (p *peer) signed(suite uint16, content []byte) any {
	signature, err := p.sign(suite, content)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	return map[string]octets{"signature": signature}
}

func (p *peer) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = p.in.Write(append(line, '\n'))
	return err
}

// prefixed writes a peer's standard error to the test's log.
type prefixed struct{ t *testing.T }

func (p *prefixed) Write(b []byte) (int, error) {
	p.t.Logf("peer: %s", b)
	return len(b), nil
}
