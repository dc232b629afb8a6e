package vault_test

import (
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

// openToken opens the token of the tests, and served filters the suites that it serves:
// SoftHSM and all suites, unless a test sets another token.
var (
	openToken = softhsmtest.Open
	served    = func(ids []ciphersuite.ID) []ciphersuite.ID { return ids }
)

// onNSS runs tests on NSS softoken, with the suites of NIST curves.
func onNSS(t *testing.T, tests map[string]func(*testing.T)) {
	open, all := openToken, served
	defer func() { openToken, served = open, all }()
	openToken = vendortest.OpenNSS
	served = func(ids []ciphersuite.ID) (some []ciphersuite.ID) {
		for _, id := range ids {
			if slices.Contains([]ciphersuite.ID{2, 5, 7}, id) {
				some = append(some, id)
			}
		}
		return some
	}
	for name, test := range tests {
		t.Run(name, test)
	}
}

func TestCustodyOnNSS(t *testing.T) {
	onNSS(t, map[string]func(*testing.T){
		"private keys live in each custody":  TestPrivateKeysLiveInEachCustody,
		"what is kept fits its key package":  TestWhatIsKeptFitsItsKeyPackageOnly,
		"custodies do not mix":               TestCustodiesDoNotMix,
		"custody token refuses other curves": TestTokenCustodyRefusesOtherCurves,
	})
}

// A token that makes the nonces of AES-GCM by itself, as AWS CloudHSM does.
func TestCustodyWithTheTokensNonces(t *testing.T) {
	open := openToken
	defer func() { openToken = open }()
	openToken = func(tb testing.TB) *token.Token {
		tb.Helper()
		cfg := softhsmtest.Config(tb)
		cfg.Quirks.TokenNonce = true
		m := tokentest.New(tb, cfg.Module)
		m.SetOwnNonces(true)
		return m.Open(tb, cfg)
	}
	t.Run("private keys live", TestPrivateKeysLiveInEachCustody)
	t.Run("a stamp fits its record only", TestAStampFitsItsRecordOnly)
}
