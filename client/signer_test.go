package client

import (
	"bytes"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

func FuzzLabelled(f *testing.F) {
	f.Add(wire.AppendVector(wire.AppendVector(nil, []byte("MLS 1.0 LeafNodeTBS")), []byte("content")))
	f.Add(wire.AppendVector(wire.AppendVector(nil, []byte("MLS 1.0 ")), bytes.Repeat([]byte{1}, 70)))
	f.Add([]byte("a hash"))
	f.Fuzz(func(t *testing.T, b []byte) {
		label, body, err := labelled(b)
		if err != nil {
			return
		}
		again := wire.AppendVector(wire.AppendVector(nil, []byte("MLS 1.0 "+label)), body)
		if !bytes.Equal(again, b) {
			t.Errorf("labelled(%x) is that of %x", b, again)
		}
	})
}
