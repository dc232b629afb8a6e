package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a config file.
type Fault struct {
	Line    int    // 0: unknown
	Message string // without the value of the field, which might be a PIN in the wrong place
}

// String writes the fault as a person reads it.
func (f Fault) String() string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// Error is a config file that cannot be used: Cause where it could not be read
// at all, else all of its faults.
type Error struct {
	Path   string
	Faults []Fault // by line
	Cause  error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("config")
	if e.Path != "" {
		fmt.Fprintf(&b, " %s", e.Path)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", cause(e.Cause))
		return b.String()
	}
	if len(e.Faults) == 1 {
		fmt.Fprintf(&b, ": %v", e.Faults[0])
		return b.String()
	}
	fmt.Fprintf(&b, " has %d faults", len(e.Faults))
	for _, f := range e.Faults {
		fmt.Fprintf(&b, "\n%v", f)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// cause takes the operation and the path, which stand before it already, out of
// an error of the file system.
func cause(err error) error {
	type pathError interface {
		error
		Timeout() bool
		Unwrap() error
	}
	if p, ok := err.(pathError); ok {
		return p.Unwrap()
	}
	return err
}

func inOrder(faults []Fault) []Fault {
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return faults
}
