package profile

import (
	"fmt"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Warnings says which peers would refuse a key package that is not signed yet, in a sentence for each
// reason, and what else of it deserves a look.
func Warnings(peers []*Profile, kp *keypackage.KeyPackage, findings []keypackage.Finding) []string {
	var reasons []Refusal
	names := make(map[string][]string)
	for _, p := range peers {
		for _, r := range p.RefusalsUnsigned(kp, findings) {
			if len(names[r.ID]) == 0 {
				reasons = append(reasons, r)
			}
			names[r.ID] = append(names[r.ID], fmt.Sprintf("%s %s", r.Peer, r.Version))
		}
	}
	var out []string
	for _, r := range reasons {
		value := ""
		if r.Value != "" {
			value = " (" + r.Value + ")"
		}
		out = append(out, fmt.Sprintf("refused by %s: %s%s [%s]", strings.Join(names[r.ID], ", "), r.Message, value, r.ID))
	}
	if l := kp.LeafNode.Lifetime; l.NotAfter-l.NotBefore > maxTotalLifetime {
		out = append(out, fmt.Sprintf("a total lifetime of %s: openmls declares a maximum of 84d1h, which it does not enforce today", days(l.NotAfter-l.NotBefore)))
	}
	return out
}

// maxTotalLifetime is the longest total lifetime that no known peer refuses, in seconds: 84 days and
// the hour before them.
const maxTotalLifetime = (84*24 + 1) * 60 * 60

// days shows seconds in days and hours.
func days(seconds uint64) string {
	const day = 24 * 60 * 60
	whole, rest := seconds/day, time.Duration(seconds%day)*time.Second
	if rest == 0 {
		return fmt.Sprintf("%dd", whole)
	}
	return fmt.Sprintf("%dd%v", whole, rest)
}
