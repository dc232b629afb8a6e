package directory

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
)

// memory is an Account that keeps its token in memory.
type memory struct{ token []byte }

func (m *memory) Token(context.Context) ([]byte, error) { return m.token, nil }

func (m *memory) Keep(_ context.Context, token []byte) error {
	m.token = token
	return nil
}

func alice(t *testing.T, s *directorytest.Server, a Account) Publisher {
	t.Helper()
	o, err := NewOpenMLS(quick(s.URL))
	if err != nil {
		t.Fatal(err)
	}
	return o.For([]byte("alice"), a)
}

func wantLeft(t *testing.T, s *directorytest.Server, want int) {
	t.Helper()
	o, _ := NewOpenMLS(quick(s.URL))
	left, err := o.Left(t.Context(), []byte("alice"))
	if err != nil || len(left) != want {
		t.Errorf("Left() = %d, %v, want %d", len(left), err, want)
	}
}

func TestAClientIsRegisteredAndThenAddsToItsKeyPackages(t *testing.T) {
	s, items, account := serve(t), itemsOf(t, 6), new(memory)
	wantLeft(t, s, 0)
	publish(t, alice(t, s, account), items[:3])
	if len(account.token) != 32 {
		t.Fatalf("the token has %d bytes, want 32", len(account.token))
	}
	publish(t, alice(t, s, account), items[3:])
	wantLeft(t, s, 6)
	wantPosted(t, s, items, 1)
	if got := alice(t, s, account).Publish(t.Context(), nil); len(got) != 0 {
		t.Errorf("Publish() of nothing = %v", got)
	}
}

func TestWhatMayBeThereIsLookedForFirst(t *testing.T) {
	s, items, account := serve(t), itemsOf(t, 4), new(memory)
	publish(t, alice(t, s, account), items[:2])
	for i := range items {
		items[i].Again = true
	}
	publish(t, alice(t, s, account), items)
	wantLeft(t, s, 4)
	wantPosted(t, s, items, 1)
}

func TestALostAnswerPublishesNothingTwice(t *testing.T) {
	s, items, account := serve(t), itemsOf(t, 4), new(memory)
	publish(t, alice(t, s, account), items[:1])
	s.Fail(directorytest.Reset(true))
	publish(t, alice(t, s, account), items[1:])
	wantLeft(t, s, 4)
	wantPosted(t, s, items, 1)
}

func TestAClientThatIsKnownToOthersAlone(t *testing.T) {
	s, items := serve(t), itemsOf(t, 3)
	publish(t, alice(t, s, new(memory)), items[:1])
	if err := alice(t, s, new(memory)).Publish(t.Context(), items[1:2])[0]; !errors.Is(err, ErrKnown) {
		t.Errorf("Publish() err = %v, want ErrKnown", err)
	}
	wrong := &memory{make([]byte, 32)}
	if err := alice(t, s, wrong).Publish(t.Context(), items[1:2])[0]; !errors.Is(err, ErrUnauthorized) {
		t.Errorf("Publish() with another token err = %v, want ErrUnauthorized", err)
	}
	wantLeft(t, s, 1)
}

func TestAServiceThatForgotIsToldAnew(t *testing.T) {
	s, items, account := serve(t), itemsOf(t, 2), new(memory)
	publish(t, alice(t, s, account), items[:1])
	was := account.token
	s.Forget()
	publish(t, alice(t, s, account), items[1:])
	if bytes.Equal(was, account.token) {
		t.Error("the token is the one before, want that of the new registration")
	}
	wantLeft(t, s, 1)
}

func TestOneThatIsRefusedHoldsUpNoOther(t *testing.T) {
	s, items, account := serve(t), itemsOf(t, 5), new(memory)
	s.Refuse(items[2].Ref)
	for i, err := range alice(t, s, account).Publish(t.Context(), items) {
		if want := i == 2; errors.Is(err, ErrRefused) != want || !want && err != nil {
			t.Errorf("Publish()[%d] err = %v, want it refused: %v", i, err, want)
		}
	}
	wantLeft(t, s, 4)
}

func TestAnswersThatAreNotUnderstood(t *testing.T) {
	for name, body := range map[string]string{"nothing": "", "short": "\x20short", "long": "\x20" + string(make([]byte, 33)), "text": "OK"} {
		s, account := serve(t), new(memory)
		s.Fail(directorytest.Body(body))
		if err := alice(t, s, account).Publish(t.Context(), itemsOf(t, 1))[0]; !errors.Is(err, ErrAnswer) || len(account.token) != 0 {
			t.Errorf("%s: Publish() err = %v, want ErrAnswer and no token kept", name, err)
		}
	}
}

func TestAnAccountThatFails(t *testing.T) {
	s := serve(t)
	if err := alice(t, s, broken{}).Publish(t.Context(), itemsOf(t, 1))[0]; !errors.Is(err, errBroken) {
		t.Errorf("Publish() err = %v, want %v", err, errBroken)
	}
	wantLeft(t, s, 0)
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Token(context.Context) ([]byte, error) { return nil, errBroken }

func (broken) Keep(context.Context, []byte) error { return errBroken }

// A valid answer is invalid if it is truncated anywhere or has trailing bytes.
func TestAnswersThatAreCut(t *testing.T) {
	items := itemsOf(t, 2)
	b := clientKeyPackages(items)
	refs, err := parseClientKeyPackages(b)
	if err != nil || len(refs) != 2 || !bytes.Equal(refs[1], items[1].Ref) {
		t.Fatalf("parseClientKeyPackages() = %v, %v, want the refs of both", refs, err)
	}
	for n := range len(b) {
		if _, err := parseClientKeyPackages(b[:n]); !errors.Is(err, ErrAnswer) {
			t.Fatalf("parseClientKeyPackages() of %d bytes err = %v, want ErrAnswer", n, err)
		}
		cut := bytes.Clone(b[:n])
		if n >= 4 {
			binary.BigEndian.PutUint32(cut, uint32(n-4))
		}
		if refs, err := parseClientKeyPackages(cut); err == nil && len(refs) == 2 {
			t.Fatalf("parseClientKeyPackages() of %d bytes = %v, want less", n, refs)
		}
	}
	if _, err := parseClientKeyPackages(append(bytes.Clone(b), 0)); !errors.Is(err, ErrAnswer) {
		t.Errorf("parseClientKeyPackages() of more err = %v, want ErrAnswer", err)
	}
	b[5] ^= 1
	if _, err := parseClientKeyPackages(b); !errors.Is(err, ErrAnswer) {
		t.Errorf("parseClientKeyPackages() with another ref err = %v, want ErrAnswer", err)
	}
}

// No answer causes a panic, and only refs that were sent are returned.
func FuzzParseClientKeyPackages(f *testing.F) {
	f.Add(clientKeyPackages(itemsOf(f, 2)))
	f.Add(clientKeyPackages(nil))
	f.Add([]byte{0, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		refs, err := parseClientKeyPackages(b)
		if err != nil && (!errors.Is(err, ErrAnswer) || refs != nil) {
			t.Errorf("parseClientKeyPackages() = %v, %v, want ErrAnswer alone", refs, err)
		}
		for _, ref := range refs {
			if !bytes.Contains(b, ref) {
				t.Errorf("ref %s is not in the answer", hex.EncodeToString(ref))
			}
		}
		if token, err := parseAuthToken(b); (err == nil) != (len(token) == 32) {
			t.Errorf("parseAuthToken() = %d bytes, %v", len(token), err)
		}
	})
}
