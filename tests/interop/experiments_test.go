package interop

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// experiment is a post-quantum suite whose number the named peers understand in the same way: others use
// that number for another suite.
type experiment struct {
	ciphersuite.Experiment
	peers []string
}

var experiments = []experiment{
	{ciphersuite.Experiment{ID: 77, Name: "MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519",
		KEM: "X-Wing", AEAD: "CHACHA20POLY1305", Hash: "SHA256", Signature: "Ed25519"}, []string{"openmls"}},
	{ciphersuite.Experiment{ID: 78, Name: "MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519",
		KEM: "X-Wing", AEAD: "AES256GCM", Hash: "SHA384", Signature: "Ed25519"}, []string{"openmls"}},
	{ciphersuite.Experiment{ID: 79, Name: "MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519",
		KEM: "X-Wing", AEAD: "AES128GCM", Hash: "SHA256", Signature: "Ed25519"}, []string{"openmls"}},
	{ciphersuite.Experiment{ID: 80, Name: "MLS_128_MLKEM768_AES256GCM_SHA384_P256",
		KEM: "ML-KEM-768", AEAD: "AES256GCM", Hash: "SHA384", Signature: "P256"}, []string{"openmls"}},
	{ciphersuite.Experiment{ID: 83, Name: "MLS_256_XWING_AES256GCM_SHA512_Ed25519",
		KEM: "X-Wing", AEAD: "AES256GCM", Hash: "SHA512", Signature: "Ed25519"}, []string{"ts-mls"}},
	{ciphersuite.Experiment{ID: 84, Name: "MLS_256_XWING_CHACHA20POLY1305_SHA512_Ed25519",
		KEM: "X-Wing", AEAD: "CHACHA20POLY1305", Hash: "SHA512", Signature: "Ed25519"}, []string{"ts-mls"}},
}

// understands reports whether a peer assigns the same suite to a number as we do.
func understands(p *peer, suite uint16) bool {
	if !slices.Contains(p.hello.Suites, suite) {
		return false
	}
	i := slices.IndexFunc(experiments, func(e experiment) bool { return uint16(e.ID) == suite })
	return i < 0 || slices.Contains(experiments[i].peers, p.hello.Name)
}

// enableExperiments registers the suites here and in an installation.
func enableExperiments(t *testing.T, i *program.Installation) {
	t.Helper()
	var list bytes.Buffer
	for _, e := range experiments {
		if err := ciphersuite.Register(e.Experiment); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&list, "    - {number: %d, name: %s, kem: %s, aead: %s, hash: %s, signature: %s}\n", uint16(e.ID), e.Name, e.KEM, e.AEAD, e.Hash, e.Signature)
	}
	i.Append("experimental:\n  enabled: true\n  suites:\n" + list.String())
}
