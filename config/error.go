package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a config file.
type Fault struct {
	Line    int    // 0 if unknown
	Message string // without the value of the field, which might be a PIN in the wrong place
}

// String returns the fault as people read it.
func (f Fault) String() string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// Error reports a config file that cannot be used. It has either a Cause, if the file could not be
// read at all, or all faults of the file.
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

// cause removes the operation and the path, which the message already has, from a file system
// error.
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
