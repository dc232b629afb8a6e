package token

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ThalesGroup/crypto11"
)

// choose returns the one initialised token that cfg names. It looks at all
// slots before anything is opened: crypto11 would take the first of two tokens
// of one label, and try the PIN on it.
func (m *module) choose(cfg Config) (Info, error) {
	all, err := m.tokens(cfg.Quirks)
	if err != nil {
		return Info{}, fmt.Errorf("find token in %q: %w", m.path, err)
	}
	chosen, err := choose(all, cfg)
	if err != nil {
		return Info{}, fmt.Errorf("find token with %s in %q: %w", cfg.criteria(), m.path, err)
	}
	return chosen, nil
}

func choose(all []Info, cfg Config) (Info, error) {
	fit := slices.DeleteFunc(slices.Clone(all), func(i Info) bool { return !cfg.fits(i) })
	usable := slices.DeleteFunc(slices.Clone(fit), func(i Info) bool { return !i.Initialized })
	switch {
	case len(usable) == 1:
		return usable[0], nil
	case len(usable) > 1:
		return Info{}, fmt.Errorf("%w: %s", ErrAmbiguousToken, listTokens(usable))
	case len(fit) > 0 && cfg.narrows():
		return Info{}, fmt.Errorf("%w: %s", ErrUninitialized, listTokens(fit))
	}
	return Info{}, fmt.Errorf("%w; the module has %s", ErrNoToken, listTokens(initialized(all)))
}

func (cfg Config) fits(i Info) bool {
	return (cfg.Label == "" || cfg.Label == i.Label) &&
		(cfg.Serial == "" || cfg.Serial == i.Serial) &&
		(cfg.Slot == nil || *cfg.Slot == i.Slot) &&
		(cfg.Manufacturer == "" || cfg.Manufacturer == i.Manufacturer) &&
		(cfg.Model == "" || cfg.Model == i.Model)
}

func (cfg Config) narrows() bool {
	return cfg.Slot != nil || cfg.Label+cfg.Serial+cfg.Manufacturer+cfg.Model != ""
}

// criteria says what was looked for, for messages.
func (cfg Config) criteria() string {
	var parts []string
	for _, c := range []struct{ name, value string }{
		{"label", cfg.Label}, {"serial", cfg.Serial}, {"manufacturer", cfg.Manufacturer}, {"model", cfg.Model},
	} {
		if c.value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", c.name, c.value))
		}
	}
	if cfg.Slot != nil {
		parts = append(parts, fmt.Sprintf("slot %d", *cfg.Slot))
	}
	if len(parts) == 0 {
		return "any label"
	}
	return strings.Join(parts, ", ")
}

func initialized(all []Info) []Info {
	return slices.DeleteFunc(slices.Clone(all), func(i Info) bool { return !i.Initialized })
}

func listTokens(infos []Info) string {
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

// crypto11Config names the chosen token to crypto11: by its serial, because some
// modules give out other slots each time they are initialised, or by its slot
// where the serial does not tell.
//
// crypto11 is told to leave the login alone: it would keep the PIN for good, and
// a failed login would leave its session open. A login holds for all sessions of
// the process, crypto11's too.
func (m *module) crypto11Config(chosen Info, c Config) *crypto11.Config {
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

// locate finds the chosen token again after the module was initialised anew: a
// PIN must not be tried on another one.
func (m *module) locate(chosen Info) (Info, error) {
	all, err := readTokens(m.path, m.api)
	if err != nil {
		return Info{}, err
	}
	same := slices.DeleteFunc(all, func(i Info) bool { return i.identity() != chosen.identity() })
	if chosen.rawSerial == "" {
		same = slices.DeleteFunc(same, func(i Info) bool { return i.Slot != chosen.Slot })
	}
	if len(same) != 1 {
		return Info{}, errTokenChanged
	}
	return same[0], nil
}
