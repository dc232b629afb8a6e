package operator

import (
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Report receives messages for a person while an act runs. Its methods may be called by several
// goroutines at once. Texts are sentences without a final period or newline, and name no command.
type Report interface {
	// Note receives information about the work.
	Note(text string)
	// Warn receives what did not stop the act but deserves attention.
	Warn(warning error)
	// Progress receives how far a long act is. It is called often; the Report decides what to show.
	Progress(Progress)
}

// Progress is how far a long act is.
type Progress struct {
	Verb     string    // what was done to them, as "retired"; may be empty
	Done, Of uint64    // Of is 0 if nobody has counted
	Noun     string    // what is counted, in the singular
	Since    time.Time // when it began; zero if the rate says nothing
}

// Silent reports nothing.
type Silent struct{}

// Note implements Report.
func (Silent) Note(string) {}

// Warn implements Report.
func (Silent) Warn(error) {}

// Progress implements Report.
func (Silent) Progress(Progress) {}

func (o *Operator) notef(format string, args ...any) { o.report.Note(fmt.Sprintf(format, args...)) }

// warnf accepts %w, so that the Report can give a hint about the warning.
func (o *Operator) warnf(format string, args ...any) { o.report.Warn(fmt.Errorf(format, args...)) }

// requestf makes an act.RequestError.
func requestf(format string, args ...any) error { return act.Requestf(format, args...) }

// ErrPartial reports an act that was interrupted after a part of it was done. What was done
// stays; calling the act again does the rest.
var ErrPartial = errors.New("stopped early")

// Plural returns "1 key package" or "7 key packages".
func Plural[N int | uint64](n N, noun string) string { return PluralOf(n, noun, noun+"s") }

// PluralOf is Plural for a noun whose plural is irregular.
func PluralOf[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
