package operator

import (
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ErrRetired reports an identity that no longer signs.
var ErrRetired = errors.New("it is retired, and signs no key packages")

// requireSigning refuses a retired identity.
func requireSigning(record *store.Identity) error {
	if record.RetiredAt.IsZero() {
		return nil
	}
	return fmt.Errorf("identity %q: %w", record.Name, ErrRetired)
}

// isLive reports whether key packages in a state are used or may be used.
func isLive(s store.State) bool {
	return s == store.Pending || s == store.Available || s == store.Published || s == store.Claimed
}

// isKept reports whether private keys of a custody are kept here to be used here, and not for a
// device or by one.
func isKept(custody string) bool {
	return custody == vault.CustodyWrapped || custody == vault.CustodyToken
}

// itemsOf returns the public parts of records. If one record is at fault, it returns none.
func itemsOf(records []store.KeyPackage) ([]directory.Item, error) {
	items := make([]directory.Item, len(records))
	for i := range records {
		kp, err := inventory.Public(&records[i])
		if err != nil {
			return nil, err
		}
		items[i] = directory.Item{Ref: records[i].Ref, KeyPackage: kp}
	}
	return items, nil
}

// writeAll puts the public parts of records into a folder and returns the names of the files.
// If one record is at fault, a reader of the folder sees none.
func writeAll(out *directory.Spool, records []store.KeyPackage) ([]string, error) {
	items, err := itemsOf(records)
	if err != nil {
		return nil, err
	}
	return out.WriteAll(items)
}
