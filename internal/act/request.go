package act

import "fmt"

// RequestError reports a request that cannot be carried out as it was made, or a setting of the
// config that it needs and that is at fault. Nothing was changed.
type RequestError struct{ Text string }

// Error implements error.
func (e *RequestError) Error() string { return e.Text }

// Requestf makes a RequestError.
func Requestf(format string, args ...any) error { return &RequestError{fmt.Sprintf(format, args...)} }
