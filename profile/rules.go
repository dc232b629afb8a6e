package profile

import (
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// rule is one that RFC 9420 does not have, or has otherwise.
type rule struct {
	id, message string
	// broken reports whether a key package breaks the rule, and by which value.
	broken func(*keypackage.KeyPackage) (value string, broken bool)
}

var (
	bothCredentials = rule{"credentials-not-both-listed", "capabilities must list both credentials, basic and x509",
		func(kp *keypackage.KeyPackage) (string, bool) {
			for _, t := range []keypackage.CredentialType{keypackage.CredentialBasic, keypackage.CredentialX509} {
				if !slices.Contains(kp.LeafNode.Capabilities.Credentials, t) {
					return fmt.Sprintf("%v is missing", t), true
				}
			}
			return "", false
		}}
	noLastResort = rule{"last-resort-refused", "it refuses the last_resort extension",
		func(kp *keypackage.KeyPackage) (string, bool) { return "", kp.LastResort() }}
	applicationIDListed = rule{"application-id-not-listed", "application_id must be listed in capabilities, which RFC 9420 forbids",
		func(kp *keypackage.KeyPackage) (string, bool) {
			return "", hasApplicationID(kp) && !slices.Contains(kp.LeafNode.Capabilities.Extensions, keypackage.ExtensionApplicationID)
		}}
	noApplicationID = rule{"application-id-refused", "it takes application_id neither listed in capabilities nor unlisted",
		func(kp *keypackage.KeyPackage) (string, bool) { return "", hasApplicationID(kp) }}
	shortLifetime = rule{"lifetime-over-90-days", "as a joiner it refuses a total lifetime over 90 days",
		func(kp *keypackage.KeyPackage) (string, bool) {
			l := kp.LeafNode.Lifetime
			const limit = 90 * 24 * 60 * 60
			return fmt.Sprintf("%d s", l.NotAfter-l.NotBefore), l.NotAfter >= l.NotBefore && l.NotAfter-l.NotBefore > limit
		}}
)

func hasApplicationID(kp *keypackage.KeyPackage) bool {
	return slices.ContainsFunc(kp.LeafNode.Extensions, func(e keypackage.Extension) bool { return e.Type == keypackage.ExtensionApplicationID })
}

// suites lists cipher suites by number.
func suites(numbers ...ciphersuite.ID) []ciphersuite.ID { return numbers }
