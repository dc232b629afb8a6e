package main

import (
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// itemsOf are the public parts of records. Where a record is at fault, there are none.
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

// writeAll puts the public parts of records into a folder and returns the names of the
// files. Where a record is at fault, a reader of the folder sees none.
func writeAll(out *directory.Spool, records []store.KeyPackage) ([]string, error) {
	items, err := itemsOf(records)
	if err != nil {
		return nil, err
	}
	return out.WriteAll(items)
}
