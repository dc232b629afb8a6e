package inventory_test

import (
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

// openToken opens the token of a test, and served selects the suites that it serves: SoftHSM and
// all suites, except in tests on another token.
var (
	openToken = softhsmtest.Open
	served    = func(ids []ciphersuite.ID) []ciphersuite.ID { return ids }
	onlyNSS   bool // tokens of other makes are skipped
)

// onNSS runs tests on NSS softoken, in the suites with P-curves.
func onNSS(t *testing.T, tests map[string]func(*testing.T)) {
	open, all := openToken, served
	defer func() { openToken, served, onlyNSS = open, all, false }()
	openToken, onlyNSS = vendortest.OpenNSS, true
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

// The life of key packages and wrapping keys, on another implementation of the P-curves.
func TestTheLifeCycleOnNSS(t *testing.T) {
	onNSS(t, map[string]func(*testing.T){
		"a Welcome is opened once":           TestAWelcomeIsOpenedOnce,
		"a Welcome that does not open":       TestAWelcomeThatDoesNotOpenCostsNothing,
		"a last resort is opened repeatedly": TestALastResortIsOpenedMoreThanOnce,
		"a Welcome for two":                  TestAWelcomeForTwoOfOurs,
		"a leaf's key outlives the init key": TestALeafsKeyOutlivesTheInitKey,
		"rewrapped, and the old key can go":  TestWhatIsRewrappedOpensAndTheOldKeyCanGo,
		"shredded is what is under the key":  TestShreddingErasesWhatIsUnderTheKeyOnly,
	})
}
