package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ThalesGroup/crypto11"
)

// Criteria narrow the choice of a token; an empty one fits any.
type Criteria struct {
	Label, Serial, Manufacturer, Model string
	Slot                               *uint
}

// choose returns the one initialized token that cfg.Want names. It looks at all slots first:
// crypto11 would take the first of two tokens of one label, and try the PIN on it.
func (m *module) choose(cfg Config) (slotInfo, error) {
	all, err := m.tokens(cfg.Quirks.InitArgs)
	if err != nil {
		return slotInfo{}, fmt.Errorf("find token in %q: %w", m.path, err)
	}
	chosen, err := choose(all, cfg.Want)
	if err != nil {
		return slotInfo{}, fmt.Errorf("find token with %s in %q: %w", cfg.Want, m.path, err)
	}
	return chosen, nil
}

func choose(all []slotInfo, want Criteria) (slotInfo, error) {
	fit := slices.DeleteFunc(slices.Clone(all), func(i slotInfo) bool { return !want.fits(i) })
	usable := slices.DeleteFunc(slices.Clone(fit), func(i slotInfo) bool { return !i.Initialized })
	switch {
	case len(usable) == 1:
		return usable[0], nil
	case len(usable) > 1:
		return slotInfo{}, fmt.Errorf("%w: %s", ErrAmbiguousToken, listTokens(usable))
	case len(fit) > 0 && want.narrows():
		return slotInfo{}, fmt.Errorf("%w: %s", ErrUninitialized, listTokens(fit))
	}
	return slotInfo{}, fmt.Errorf("%w; the module has %s", ErrNoToken, listTokens(initialized(all)))
}

func (c Criteria) fits(i slotInfo) bool {
	return (c.Label == "" || c.Label == i.Label) &&
		(c.Serial == "" || c.Serial == i.Serial) &&
		(c.Slot == nil || *c.Slot == i.Slot) &&
		(c.Manufacturer == "" || c.Manufacturer == i.Manufacturer) &&
		(c.Model == "" || c.Model == i.Model)
}

func (c Criteria) narrows() bool {
	return c.Slot != nil || c.Label+c.Serial+c.Manufacturer+c.Model != ""
}

// String says what was looked for, for messages.
func (c Criteria) String() string {
	var parts []string
	for _, want := range []struct{ name, value string }{
		{"label", c.Label}, {"serial", c.Serial}, {"manufacturer", c.Manufacturer}, {"model", c.Model},
	} {
		if want.value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", want.name, want.value))
		}
	}
	if c.Slot != nil {
		parts = append(parts, fmt.Sprintf("slot %d", *c.Slot))
	}
	if len(parts) == 0 {
		return "any label"
	}
	return strings.Join(parts, ", ")
}

func initialized(all []slotInfo) []slotInfo {
	return slices.DeleteFunc(slices.Clone(all), func(i slotInfo) bool { return !i.Initialized })
}

func listTokens(infos []slotInfo) string {
	if len(infos) == 0 {
		return "none"
	}
	names := make([]string, len(infos))
	for n, i := range infos {
		names[n] = i.String()
	}
	return strings.Join(names, ", ")
}

// errTokenChanged reports a token that is no longer where it was found.
var errTokenChanged = fmt.Errorf("%w: it is no longer in its slot", ErrNoToken)

// crypto11Config names the chosen token to crypto11: by its serial, because some modules number
// the slots anew each time they are initialized, or by its slot if the serial is not unique.
//
// crypto11 does not log in: it would keep the PIN for good, and a failed login would leave its
// session open. A login holds for all sessions of the process, also for those of crypto11.
func (m *module) crypto11Config(chosen slotInfo, c Config) *crypto11.Config {
	sessions := 1 // to find keys, and nothing else
	if c.Quirks.LibraryCalls || m.one == nil {
		sessions = c.Sessions
	}
	cfg := &crypto11.Config{
		Path:              m.path,
		TokenSerial:       chosen.rawSerial,
		MaxSessions:       sessions + 1, // it keeps one to itself
		LoginNotSupported: true,
	}
	if cfg.TokenSerial == "" {
		slot := int(chosen.Slot)
		cfg.SlotNumber = &slot
	}
	return cfg
}

// locate finds the chosen token again after the module was initialized again: a PIN must not be
// tried on another one.
func (m *module) locate(chosen slotInfo) (slotInfo, error) {
	all, err := readTokens(m.path, m.api)
	if err != nil {
		return slotInfo{}, err
	}
	same := slices.DeleteFunc(all, func(i slotInfo) bool { return i.identity() != chosen.identity() })
	if chosen.rawSerial == "" {
		same = slices.DeleteFunc(same, func(i slotInfo) bool { return i.Slot != chosen.Slot })
	}
	if len(same) != 1 {
		return slotInfo{}, errTokenChanged
	}
	return same[0], nil
}
