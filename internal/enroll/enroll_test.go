package enroll

import (
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/config"
)

func TestTheEnrollmentCommandGetsNoPIN(t *testing.T) {
	environment := []string{"PATH=/bin", "HSM_PIN=1234", "HSM_PIN_TOO=x", "CREDENTIALS_DIRECTORY=/run/credentials", "EMPTY="}
	for _, c := range []struct {
		pin  config.PIN
		want []string
	}{
		{config.PIN{Env: "HSM_PIN"}, []string{"PATH=/bin", "HSM_PIN_TOO=x", "CREDENTIALS_DIRECTORY=/run/credentials", "EMPTY="}},
		{config.PIN{Systemd: "pin"}, []string{"PATH=/bin", "HSM_PIN=1234", "HSM_PIN_TOO=x", "EMPTY="}},
		{config.PIN{File: "pin"}, environment},
	} {
		if got := withoutPIN(environment, c.pin); !slices.Equal(got, c.want) {
			t.Errorf("withoutPIN(%+v) = %q, want %q", c.pin, got, c.want)
		}
	}
}

func TestWhatACommandSaysIsCutShort(t *testing.T) {
	l := &limited{limit: 10}
	for _, text := range []string{"one\n", "two\x1b[2J", "three"} {
		if n, err := l.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("Write(%q) = %d, %v", text, n, err)
		}
	}
	if got := l.after(": "); !l.cut || l.Len() != 10 || got != `: one two\x1b[2` {
		t.Errorf("after() = %q with %d bytes, cut %v", got, l.Len(), l.cut)
	}
	if got := (&limited{limit: 1}).after(": "); got != "" {
		t.Errorf("after() of nothing = %q", got)
	}
}
