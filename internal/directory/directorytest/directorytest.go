// Package directorytest has directories for tests, on this machine: one that accepts each key
// package in a POST, and the endpoints of the OpenMLS delivery service. They remember what they
// received, and fail on request.
package directorytest

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Decoded is a key package that a directory received.
type Decoded struct {
	Size     int    // length in bytes
	Ref      []byte // KeyPackageRef
	Identity []byte // content of the credential
}

// Decode decodes the key package that b begins with. Ours is the product's own decoder; tests use
// that of another library, so that a fault of the codec does not hide itself.
type Decode func(b []byte) (Decoded, error)

// Ours decodes with the product's own codec.
func Ours(b []byte) (Decoded, error) {
	kp, rest, err := keypackage.ReadKeyPackage(slices.Clone(b))
	if err != nil {
		return Decoded{}, err
	}
	ref, err := kp.Ref()
	return Decoded{Size: len(b) - len(rest), Ref: ref, Identity: kp.LeafNode.Credential.Identity}, err
}

// Fault is what a directory does instead of its work, or after it.
type Fault struct {
	// After means that the work is done first.
	After bool
	Do    func(w http.ResponseWriter)
}

// Status answers with a status, and headers of the form "Name: value".
func Status(status int, headers ...string) Fault {
	return Fault{Do: func(w http.ResponseWriter) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
	}}
}

// Reset closes the connection in the middle of an answer, after the work if after is set.
func Reset(after bool) Fault {
	return Fault{After: after, Do: func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half of")
		panic(http.ErrAbortHandler)
	}}
}

// Slow waits before it answers 200.
func Slow(d time.Duration) Fault {
	return Fault{Do: func(http.ResponseWriter) { time.Sleep(d) }}
}

// Body answers 200 with the given text.
func Body(text string) Fault {
	return Fault{Do: func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) }}
}

// Server is a directory: for HTTP at URL and "/key-packages", for OpenMLS at URL.
type Server struct {
	*httptest.Server
	decode Decode

	mu       sync.Mutex
	faults   []Fault
	refuse   map[string]bool
	requests []*http.Request
	posted   map[string]int // by ref: how often it was accepted or sent again
	content  map[string][]byte
	clients  map[string]*member
}

// member is a client of the OpenMLS delivery service.
type member struct {
	token       []byte
	keyPackages []entry
}

type entry struct{ ref, bytes []byte }

// New starts a server. The caller must close it.
func New(decode Decode) *Server {
	s := NewUnstarted(decode)
	s.Start()
	return s
}

// NewUnstarted returns a server that the caller starts, for example with TLS.
func NewUnstarted(decode Decode) *Server {
	s := &Server{decode: decode, refuse: make(map[string]bool), posted: make(map[string]int), content: make(map[string][]byte), clients: make(map[string]*member)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /key-packages", s.post)
	mux.HandleFunc("POST /clients/register", s.register)
	mux.HandleFunc("GET /clients/key_packages/{id}", s.list)
	mux.HandleFunc("POST /clients/key_packages/{id}", s.add)
	mux.HandleFunc("GET /clients/key_package/{id}", s.take)
	s.Server = httptest.NewUnstartedServer(s.faulty(mux))
	return s
}

// Fail makes the next requests fail, one for each fault.
func (s *Server) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Unfail drops the faults that are left.
func (s *Server) Unfail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Refuse makes the server refuse a key package with 400.
func (s *Server) Refuse(ref []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[hex.EncodeToString(ref)] = true
}

// Forget forgets all clients, as the delivery service does when it restarts.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.clients)
}

// Posted returns how often each key package was sent, by its ref in hexadecimal; for OpenMLS, how
// often it was accepted.
func (s *Server) Posted() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.posted)
}

// Content returns the bare key packages that were sent, by their refs in hexadecimal.
func (s *Server) Content() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.content)
}

// Requests returns the headers and addresses of all requests.
func (s *Server) Requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *Server) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r)
		var fault Fault
		if len(s.faults) > 0 {
			fault, s.faults = s.faults[0], s.faults[1:]
		}
		s.mu.Unlock()
		switch {
		case fault.Do == nil:
			next.ServeHTTP(w, r)
		case fault.After:
			next.ServeHTTP(httptest.NewRecorder(), r)
			fault.Do(w)
		default:
			fault.Do(w)
		}
	})
}

// post accepts one key package in an MLSMessage.
func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	header := []byte{0, 1, 0, 5} // mls10, mls_key_package
	content, isKeyPackage := bytes.CutPrefix(body, header)
	if err != nil || !isKeyPackage || r.Header.Get("Content-Type") != "message/mls" {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	kp, err := s.decode(content)
	ref := hex.EncodeToString(kp.Ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || kp.Size != len(content) || s.refuse[ref] || r.Header.Get("Idempotency-Key") != `"`+ref+`"` {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.posted[ref]++
	s.content[ref] = content
	if s.posted[ref] > 1 {
		w.WriteHeader(http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

var errMalformed = errors.New("malformed")

// parse decodes ClientKeyPackages and returns what follows.
func (s *Server) parse(b []byte) (all []entry, identity, rest []byte, err error) {
	if len(b) < 4 || int64(binary.BigEndian.Uint32(b)) > int64(len(b)-4) {
		return nil, nil, nil, errMalformed
	}
	n := binary.BigEndian.Uint32(b)
	b, rest = b[4:4+n], b[4+n:]
	for len(b) > 0 {
		if len(b) < 1+int(b[0]) {
			return nil, nil, nil, errMalformed
		}
		ref, after := b[1:1+b[0]], b[1+b[0]:]
		kp, err := s.decode(after)
		if err != nil || !bytes.Equal(kp.Ref, ref) || s.refuse[hex.EncodeToString(ref)] {
			return nil, nil, nil, errMalformed
		}
		if identity == nil {
			identity = kp.Identity
		}
		all = append(all, entry{ref, after[:kp.Size]})
		b = after[kp.Size:]
	}
	return all, identity, rest, nil
}

func (s *Server) keep(m *member, more []entry) {
	for _, e := range more {
		s.posted[hex.EncodeToString(e.ref)]++
		s.content[hex.EncodeToString(e.ref)] = e.bytes
	}
	m.keyPackages = append(m.keyPackages, more...)
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	all, identity, rest, err := s.parse(body)
	switch {
	case err != nil || len(rest) > 0 || len(all) == 0:
		w.WriteHeader(http.StatusBadRequest)
		return
	case s.clients[string(identity)] != nil:
		w.WriteHeader(http.StatusConflict)
		return
	}
	m := &member{token: make([]byte, 32)}
	_, _ = rand.Read(m.token)
	s.clients[string(identity)] = m
	s.keep(m, all)
	_, _ = w.Write(append([]byte{32}, m.token...))
}

// client returns the client that a request names.
func (s *Server) client(r *http.Request) *member {
	id, err := base64.URLEncoding.DecodeString(r.PathValue("id"))
	if err != nil {
		return nil
	}
	return s.clients[string(id)]
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	all, _, token, err := s.parse(body)
	m := s.client(r)
	switch {
	case err != nil || len(token) != 33 || token[0] != 32:
		w.WriteHeader(http.StatusBadRequest)
	case m == nil:
		w.WriteHeader(http.StatusNotFound)
	case subtle.ConstantTimeCompare(token[1:], m.token) != 1:
		w.WriteHeader(http.StatusUnauthorized)
	default:
		s.keep(m, all)
	}
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.client(r)
	if m == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b := make([]byte, 4)
	for _, e := range m.keyPackages {
		b = append(append(append(b, byte(len(e.ref))), e.ref...), e.bytes...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, _ = w.Write(b)
}

// take hands out one key package. It keeps the last one.
func (s *Server) take(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.client(r)
	if m == nil || len(m.keyPackages) <= 1 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_, _ = w.Write(m.keyPackages[0].bytes)
	m.keyPackages = m.keyPackages[1:]
}
