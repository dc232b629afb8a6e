// Package enroll passes certification requests to the enrollment command of the config.
package enroll

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
)

// ErrFailed reports an enrollment command that did not answer with a chain.
var ErrFailed = errors.New("the enrollment command failed")

// Limits for an enrollment command's output, in bytes: the chain, and the reason if there is
// none.
const (
	maxChain     = 1 << 20
	maxComplaint = 2 << 10
)

// enrollVariable has the name of the device for the enrollment command.
const enrollVariable = "HSM_KP_DEVICE"

// Run passes a certification request, in PEM, to the enrollment command of the config, and returns
// the chain that it answers with. The command gets the environment of this process, without the PIN.
func Run(ctx context.Context, cfg *config.Config, device string, request []byte) (certificate.Chain, error) {
	how := cfg.X509.Enroll
	ctx, cancel := context.WithTimeout(ctx, time.Duration(how.Timeout))
	defer cancel()
	out, complaint := &limited{limit: maxChain}, &limited{limit: maxComplaint}
	cmd := exec.CommandContext(ctx, how.Command[0], how.Command[1:]...)
	cmd.Stdin = bytes.NewReader(request)
	cmd.Stdout, cmd.Stderr = out, complaint
	cmd.Env = append(withoutPIN(os.Environ(), cfg.Token.PIN), enrollVariable+"="+device)
	cmd.WaitDelay = time.Second // for processes that it started and did not wait for
	err := cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("%w: it did not answer in %v", ErrFailed, time.Duration(how.Timeout))
	case err != nil:
		return nil, fmt.Errorf("%w: %w%s", ErrFailed, err, complaint.after(": "))
	case out.cut:
		return nil, fmt.Errorf("%w: it answered with more than %d bytes", ErrFailed, maxChain)
	}
	chain, err := certificate.ParsePEM(out.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%w: its answer: %w", ErrFailed, err)
	}
	return chain, nil
}

// withoutPIN removes the source of the PIN from an environment.
func withoutPIN(environment []string, pin config.PIN) []string {
	var out []string
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if pin.Env != "" && name == pin.Env || pin.Systemd != "" && name == "CREDENTIALS_DIRECTORY" {
			continue
		}
		out = append(out, variable)
	}
	return out
}

// limited keeps the first bytes that are written to it. It discards the rest, so that the writer
// does not block.
type limited struct {
	bytes.Buffer
	limit int
	cut   bool
}

func (l *limited) Write(b []byte) (int, error) {
	room := max(l.limit-l.Len(), 0)
	if len(b) > room {
		l.cut = true
		l.Buffer.Write(b[:room])
		return len(b), nil
	}
	return l.Buffer.Write(b)
}

// after returns the kept bytes on one line, printable, after a separator, or "" if there are none.
func (l *limited) after(separator string) string {
	text := strings.Join(strings.Fields(l.String()), " ")
	if text == "" {
		return ""
	}
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		text = strings.Trim(strconv.Quote(text), `"`)
	}
	return separator + text
}
