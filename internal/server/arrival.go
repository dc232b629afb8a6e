package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// watched handles requests that never reach the interceptor because they were too long or too slow
// to be read. They count as refusals too.
func (s *Server) watched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		c := &call{caller: callerFrom(r.Context())}
		if op := operationOf(r.URL.Path); act.IsGranted(string(op)) { // never a text that the caller chose
			c.op = op
		}
		body := &arrival{ReadCloser: r.Body, most: int64(s.Limits.MessageBytes) + envelope, length: r.ContentLength}
		r.Body = body
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
		if c.begun {
			return
		}
		f := body.fault()
		s.log(r.Context(), c, r.URL.Path, time.Since(begun), f)
		s.ended(c, c.op, time.Since(begun), f)
		s.conclude(r.Context(), c, f)
	})
}

// envelope is the length of the prefix that gRPC puts before a message.
const envelope = 5

// arrival is the body of a request. It remembers what was wrong with it.
type arrival struct {
	io.ReadCloser
	length, most, read int64
	slow               bool
}

// Read implements io.Reader.
func (a *arrival) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.read += int64(n)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		a.slow = true
	}
	return n, err
}

// fault returns why the request was not read, or nil.
func (a *arrival) fault() *fault {
	switch {
	case a.slow:
		return errSlow
	case a.length > a.most, a.read > a.most:
		return errTooLong
	}
	return errNoRequest
}

// operationOf returns the config's name for a procedure of the API: open_welcome for OpenWelcome.
func operationOf(procedure string) act.Act {
	var b strings.Builder
	for i, r := range path.Base(procedure) {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return act.Act(b.String())
}
