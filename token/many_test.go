package token_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

// openCounted opens a token behind a module that counts calls, with so many key pairs.
func openCounted(t *testing.T, n int) (*tokentest.Module, *token.Token, []*token.SigningKey) {
	t.Helper()
	cfg := softhsmtest.Config(t)
	m := tokentest.New(t, cfg.Module)
	cfg.Sessions = 2
	tok := m.Open(t, cfg)
	keys := make([]*token.SigningKey, n)
	for i := range keys {
		keys[i] = generate(t, tok, token.P256, fmt.Sprintf("key %d", i))
	}
	m.Reset()
	return m, tok, keys
}

// TestAKeyPairTakesAsManyCallsWhateverElseIsThere compares the calls for generating a key pair
// and for finding one with the fewest possible: there is no search for a new key pair, and one
// search for an existing one.
func TestAKeyPairTakesAsManyCallsWhateverElseIsThere(t *testing.T) {
	for _, n := range []int{1, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { fewestCalls(t, n) })
	}
}

func fewestCalls(t *testing.T, n int) {
	m, tok, keys := openCounted(t, n)
	made := generate(t, tok, token.P256, "another")
	wantCalls(t, m, "C_GetSessionInfo", 1, "C_GenerateKeyPair", 1, "C_GetAttributeValue", 2)
	if _, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: keys[0].ID()}); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, m, "C_FindObjectsInit", 1, "C_FindObjects", 2, "C_FindObjectsFinal", 1, "C_GetAttributeValue", 2)
	for range 3 {
		mustSign(t, made)
	}
	wantCalls(t, m, "C_SignInit", 3, "C_Sign", 3)
}

// wantCalls compares the calls since the last time with functions and their numbers.
func wantCalls(t *testing.T, m *tokentest.Module, functions ...any) {
	t.Helper()
	want := make(map[string]int)
	for i := 0; i < len(functions); i += 2 {
		want[functions[i].(string)] = functions[i+1].(int)
	}
	if got := m.AllCalls(); !maps.Equal(got, want) {
		t.Errorf("calls = %v, want %v", got, want)
	}
	m.Reset()
}

// fewSearches suffice for any number of keys: those before the index is begun, the one with which
// it is begun, and some until it is made.
const fewSearches = 20

// After each search objects are read for as long as the search took. On a machine that has other
// work that time may go by with few of them read: the best of three counts.
func TestManyKeysAreFoundInFewSearches(t *testing.T) {
	var found, again int
	for range 3 {
		found, again = searchesForMany(t)
		if found <= fewSearches && again > 0 && again <= fewSearches {
			return
		}
	}
	t.Errorf("%d searches for 100 keys, and %d after the sessions were lost, want 1 to %d", found, again, fewSearches)
}

// searchesForMany returns how many searches there are for many keys, and for all of them once the
// sessions were lost.
func searchesForMany(t *testing.T) (first, again int) {
	t.Helper()
	m, tok, keys := openCounted(t, 100)
	for _, k := range keys {
		found, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: k.ID(), Label: k.Label()})
		if err != nil || found.Label() != k.Label() {
			t.Fatalf("FindKeyPair() = %v, %v, want the key %q", found, err, k.Label())
		}
	}
	first = m.Calls("C_FindObjectsInit")
	m.Reset()
	m.DropSessions() // and with them the handles of all keys
	for _, k := range keys {
		mustSign(t, k)
	}
	return first, m.Calls("C_FindObjectsInit")
}

// TestWhatIsKnownOfKeysIsAHint has another Token destroy keys and make them again under the same
// ID, after this one has an index.
func TestWhatIsKnownOfKeysIsAHint(t *testing.T) {
	_, tok, keys := openCounted(t, 100)
	for _, k := range keys {
		if _, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: k.ID()}); err != nil {
			t.Fatal(err)
		}
	}
	other, err := tok.Beside(token.Quirks{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for i, k := range keys[:10] {
		if _, err := other.DestroyByID(t.Context(), k.ID(), token.ClassPrivateKey, token.ClassPublicKey); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if _, err := other.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P384, ID: k.ID()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, k := range keys[:10] {
		found, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: k.ID()})
		switch {
		case i%2 == 0 && (err != nil || found.Curve() != token.P384):
			t.Errorf("FindKeyPair() = %v, %v, want the key that took the place of the other", found, err)
		case i%2 != 0 && !errors.Is(err, token.ErrNotFound):
			t.Errorf("FindKeyPair() of a key that is destroyed = %v, %v, want %v", found, err, token.ErrNotFound)
		}
	}
	// A key that was made later is found by a search.
	late, err := other.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: late.ID()}); err != nil {
		t.Errorf("FindKeyPair() of a later key err = %v, want nil", err)
	}
}

// TestCopiesOfManyKeysAreBounded uses more keys than a session keeps copies of, each often enough
// for a copy to be made.
func TestCopiesOfManyKeysAreBounded(t *testing.T) {
	m, tok, keys := openCounted(t, 50)
	for _, k := range keys {
		for range 64 {
			mustSign(t, k)
		}
	}
	made, destroyed := m.Calls("C_CopyObject"), m.Calls("C_DestroyObject")
	if made-destroyed > 2*tok.Sessions()*32 {
		t.Errorf("%d copies were made and %d destroyed: more than sessions may keep", made, destroyed)
	}
	for _, k := range keys {
		mustSign(t, k)
	}
}

// TestAModuleIsInitializedOnce has Open initialize the module once, however the token is named:
// some modules look at every object that they have when they are initialized.
func TestAModuleIsInitializedOnce(t *testing.T) {
	cfg := softhsmtest.Config(t)
	m := tokentest.New(t, cfg.Module)
	opened, err := token.Open(t.Context(), m.Config(cfg))
	if err != nil {
		t.Fatal(err)
	}
	info := opened.Info()
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	for name, named := range map[string]token.Config{
		"serial": {Serial: info.Serial}, "label": {Label: info.Label}, "serial and label": {Serial: info.Serial, Label: info.Label},
	} {
		t.Run(name, func(t *testing.T) {
			named.Module, named.PIN = m.Path, cfg.PIN
			m.Reset()
			tok, err := token.Open(t.Context(), named)
			if err != nil {
				t.Fatal(err)
			}
			if err := tok.Close(); err != nil {
				t.Fatal(err)
			}
			if n, ended := m.Calls("C_Initialize"), m.Calls("C_Finalize"); n != 1 || ended < n {
				t.Errorf("%d calls of C_Initialize and %d of C_Finalize, want one, and its end", n, ended)
			}
			named.Label = "no such token"
			m.Reset()
			if _, err := token.Open(t.Context(), named); !errors.Is(err, token.ErrNoToken) {
				t.Fatalf("Open() err = %v, want %v", err, token.ErrNoToken)
			}
			if n, ended := m.Calls("C_Initialize"), m.Calls("C_Finalize"); ended < n {
				t.Errorf("%d calls of C_Initialize and %d of C_Finalize after an error, want as many", n, ended)
			}
		})
	}
}
