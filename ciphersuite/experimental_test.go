package ciphersuite_test

import (
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

func TestRegister(t *testing.T) {
	e := ciphersuite.Experiment{ID: 0xF0A1, Name: "TEST_XWING", KEM: "X-Wing", AEAD: "AES256GCM", Hash: "SHA512", Signature: "Ed25519"}
	if _, ok := ciphersuite.Lookup(e.ID); ok {
		t.Fatal("Lookup() of what was not registered ok = true, want false")
	}
	if err := ciphersuite.Register(e); err != nil {
		t.Fatalf("Register() err = %v, want nil", err)
	}
	if err := ciphersuite.Register(e); err != nil {
		t.Errorf("Register() of the same again err = %v, want nil", err)
	}
	s, ok := ciphersuite.Lookup(e.ID)
	if !ok || !s.Experimental || s.KEM != 0x647A || s.KDF != 3 || s.AEAD != 2 || s.Nh != 64 || s.Nk != 32 || s.Signature != ciphersuite.ED25519 {
		t.Errorf("Lookup() = %+v, %v, want what was registered", s, ok)
	}
	for _, text := range []string{"test_xwing", "0xF0A1", "61601"} {
		if got, err := ciphersuite.Parse(text); err != nil || got != s {
			t.Errorf("Parse(%q) = %v, %v, want the suite", text, got, err)
		}
	}
	all := ciphersuite.All()
	if all[len(all)-1] != s || all[6].ID != 7 || all[6].Experimental {
		t.Errorf("All() = %v, want it last", all)
	}
	if got := e.ID.String(); got != "TEST_XWING" {
		t.Errorf("String() = %q, want its name", got)
	}
}

func TestRegisterRefuses(t *testing.T) {
	good := ciphersuite.Experiment{ID: 0xF0A2, Name: "TEST_OTHER", KEM: "MLKEM768-P256", AEAD: "AES128GCM", Hash: "SHA256", Signature: "P256"}
	if err := ciphersuite.Register(good); err != nil {
		t.Fatalf("Register() err = %v, want nil", err)
	}
	for want, change := range map[string]func(*ciphersuite.Experiment){
		"one of RFC 9420":                  func(e *ciphersuite.Experiment) { e.ID = 7 },
		"suite 0 is one of RFC 9420":       func(e *ciphersuite.Experiment) { e.ID = 0 },
		"reads as the number of one":       func(e *ciphersuite.Experiment) { e.Name = "0x2" },
		"is a GREASE value":                func(e *ciphersuite.Experiment) { e.ID, e.Name = 0x1A1A, "GREASED" },
		"has no name":                      func(e *ciphersuite.Experiment) { e.Name = " " },
		"number or the name is taken":      func(e *ciphersuite.Experiment) { e.Name = "TEST_THIRD" },
		"taken by 61602, TEST_OTHER":       func(e *ciphersuite.Experiment) { e.ID = 0xF0A3 },
		`KEM "Kyber" is not one of ML-KEM`: func(e *ciphersuite.Experiment) { e.KEM = "Kyber" },
		`AEAD "" is not one of AES128GCM,`: func(e *ciphersuite.Experiment) { e.AEAD = "" },
		`hash "SHA1" is not one of SHA256`: func(e *ciphersuite.Experiment) { e.Hash = "SHA1" },
		`signature "ML-DSA" is not one of`: func(e *ciphersuite.Experiment) { e.Signature = "ML-DSA" },
	} {
		e := good
		change(&e)
		if err := ciphersuite.Register(e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Register(%+v) err = %v, want one with %q", e, err, want)
		}
	}
}
