package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

// ui prints everything that a person or a pipe reads: data to stdout, all else to
// stderr. Several goroutines may call its methods at once, except for those that
// read from in.
type ui struct {
	mu       sync.Mutex
	in       io.Reader
	out      *bufio.Writer
	errOut   io.Writer
	outTerm  bool // stdout is a terminal
	errTerm  bool // stderr is a terminal
	progress string
	drawn    time.Time
}

func newUI(in io.Reader, out, errOut *os.File) *ui {
	return &ui{
		in:      in,
		out:     bufio.NewWriterSize(out, 64<<10),
		errOut:  errOut,
		outTerm: term.IsTerminal(int(out.Fd())),
		errTerm: term.IsTerminal(int(errOut.Fd())),
	}
}

// printf writes data to stdout.
func (u *ui) printf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearProgress()
	fmt.Fprintf(u.out, format, args...)
}

// json writes v to stdout as one indented JSON document.
func (u *ui) json(v any) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearProgress()
	e := json.NewEncoder(u.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// jsonLine writes v to stdout as one JSON object on a line of its own.
func (u *ui) jsonLine(v any) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clearProgress()
	e := json.NewEncoder(u.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// flush writes buffered output to stdout and returns the first error.
func (u *ui) flush() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.out.Flush(); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// notef prints information about the work to stderr.
func (u *ui) notef(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out.Flush() // keep the order of what a terminal shows; errors come back at the end
	u.clearProgress()
	fmt.Fprintf(u.errOut, format+"\n", args...)
}

// warnf warns of something that is allowed but deserves attention.
func (u *ui) warnf(format string, args ...any) { u.notef("hsm-kp: warning: "+format, args...) }

// progressf draws a progress line over the last one if stderr is a terminal,
// at most ten times a second.
func (u *ui) progressf(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.errTerm || time.Since(u.drawn) < 100*time.Millisecond {
		return
	}
	u.clearProgress()
	u.drawn = time.Now()
	u.progress = fmt.Sprintf(format, args...)
	fmt.Fprint(u.errOut, u.progress)
}

// Note implements operator.Report.
func (u *ui) Note(text string) { u.notef("%s", text) }

// Warn implements operator.Report. The hint has its own line.
func (u *ui) Warn(warning error) {
	u.warnf("%v", warning)
	if h := hint(warning); h != "" {
		u.notef("hsm-kp: hint: %s", h)
	}
}

// Progress implements operator.Report.
func (u *ui) Progress(p operator.Progress) {
	text := fmt.Sprintf("%s %d", p.Verb, p.Done)
	if p.Of > 0 {
		text += fmt.Sprintf(" of %s", operator.Plural(p.Of, p.Noun))
	} else {
		text = fmt.Sprintf("%s %s", p.Verb, operator.Plural(p.Done, p.Noun))
	}
	if !p.Since.IsZero() {
		rate := float64(p.Done) / time.Since(p.Since).Seconds()
		text += fmt.Sprintf(", %.0f a second", rate)
		if left := p.Of - p.Done; p.Of > 0 && rate > 0 {
			text += fmt.Sprintf(", %v left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	u.progressf("%s", strings.TrimSpace(text))
}

func (u *ui) clearProgress() {
	if u.progress != "" {
		fmt.Fprint(u.errOut, "\r"+strings.Repeat(" ", len(u.progress))+"\r")
		u.progress = ""
	}
}

// fail prints err in one sentence, and a hint if there is one.
func (u *ui) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out.Flush()
	u.clearProgress()
	if errors.Is(err, errSilent) || errors.Is(err, syscall.EPIPE) {
		return // already printed, or the reader has closed the pipe
	}
	for i, line := range strings.Split(err.Error(), "\n") {
		prefix := "hsm-kp: error: "
		if i > 0 {
			prefix = "hsm-kp:        "
		}
		fmt.Fprintf(u.errOut, "%s%s\n", prefix, printable(line))
	}
	if h := hint(err); h != "" {
		fmt.Fprintf(u.errOut, "hsm-kp: hint: %s\n", h)
	}
}

// errSilent ends a command with status 1 if everything was already printed.
var errSilent = errors.New("findings were printed")

// printable quotes a text with control characters, which may come from a file's
// name or from an argument, to protect the terminal.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	return strings.Trim(strconv.Quote(text), `"`)
}
