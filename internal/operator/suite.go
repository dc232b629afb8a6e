package operator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
)

// Suite returns the cipher suite with a name or a number, or the config's for an empty name. The
// error is a RequestError.
func (o *Operator) Suite(name string) (*ciphersuite.Suite, error) {
	if name == "" {
		name = o.settings.KeyPackages.Suite
	}
	s, err := ciphersuite.Parse(name)
	if err != nil && switchedOff(&o.settings.Experimental, name) {
		return nil, requestf("cipher suite %s is experimental, and experimental.enabled is not true in the config", name)
	}
	if err != nil {
		return nil, requestf("%v; it has\n%s", err, suiteList())
	}
	return s, nil
}

// switchedOff reports whether the config describes the suite with a name or a number, and has not
// enabled it.
func switchedOff(e *config.Experimental, name string) bool {
	return !e.Enabled && slices.ContainsFunc(e.Suites, func(s config.Suite) bool {
		number, err := strconv.ParseUint(name, 0, 16)
		return strings.EqualFold(s.Name, name) || err == nil && uint16(number) == s.Number
	})
}

// suiteList names the suites, one a line.
func suiteList() string {
	var lines []string
	for _, s := range ciphersuite.All() {
		lines = append(lines, fmt.Sprintf("%d  %s", uint16(s.ID), s.Name))
	}
	return strings.Join(lines, "\n")
}
