package operator

import (
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

func TestWhatIsADevicesIsNotReplenished(t *testing.T) {
	of := func(version uint64, state store.State, custody string) store.Stock {
		return store.Stock{Version: version, State: state, Custody: custody, Count: 1}
	}
	for name, c := range map[string]struct {
		stock []store.Stock
		want  bool
	}{
		"nothing yet":               {nil, false},
		"kept":                      {[]store.Stock{of(1, store.Available, "wrapped"), of(1, store.Published, "token")}, false},
		"of a device":               {[]store.Stock{of(1, store.Available, "device")}, true},
		"released":                  {[]store.Stock{of(1, store.Published, "release"), of(1, store.Expired, "release")}, true},
		"both":                      {[]store.Stock{of(1, store.Published, "release"), of(1, store.Available, "wrapped")}, false},
		"kept before":               {[]store.Stock{of(1, store.Consumed, "wrapped"), of(1, store.Published, "release")}, true},
		"a device's before":         {[]store.Stock{of(1, store.Erased, "device"), of(2, store.Published, "wrapped")}, false},
		"none any more":             {[]store.Stock{of(1, store.Erased, "wrapped"), of(2, store.Retired, "release")}, true},
		"none any more, kept":       {[]store.Stock{of(1, store.Erased, "release"), of(2, store.Consumed, "wrapped")}, false},
		"released, and now rotated": {[]store.Stock{of(1, store.Retired, "release")}, true},
	} {
		if got := ofDevice(c.stock); got != c.want {
			t.Errorf("%s: ofDevice() = %v, want %v", name, got, c.want)
		}
	}
}
