package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// The lengths on both sides of each boundary, and 37, 15293 and 494878333, the examples of RFC
// 9000, Appendix A.1.
var lengths = []struct {
	n       int
	encoded string
}{
	{0, "00"},
	{1, "01"},
	{37, "25"},
	{63, "3f"},
	{64, "4040"},
	{15293, "7bbd"},
	{16383, "7fff"},
	{16384, "80004000"},
	{494878333, "9d7f3e7d"},
	{wire.MaxVectorLen, "bfffffff"},
}

func TestLengthsTakeTheFewestBytes(t *testing.T) {
	for _, l := range lengths {
		if got := hex.EncodeToString(wire.AppendVectorLen(nil, l.n)); got != l.encoded {
			t.Errorf("AppendVectorLen(%d) = %s, want %s", l.n, got, l.encoded)
		}
		if got, want := wire.VectorLen(l.n), len(l.encoded)/2; got != want {
			t.Errorf("VectorLen(%d) = %d, want %d", l.n, got, want)
		}
	}
}

func TestVectorsComeBack(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 16383, 16384, 100_000} {
		want := bytes.Repeat([]byte{0xA5}, n)
		r := wire.NewReader(wire.AppendVector(nil, want))
		if got := r.Vector(); got == nil || !bytes.Equal(got, want) {
			t.Errorf("Vector() of %d bytes has %d bytes, or others", n, len(got))
		}
		if err := r.Finish(); err != nil {
			t.Errorf("Finish() after a vector of %d bytes err = %v, want nil", n, err)
		}
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	got := wire.AppendVector([]byte{0xEE}, []byte{1, 2})
	if want := []byte{0xEE, 2, 1, 2}; !bytes.Equal(got, want) {
		t.Errorf("AppendVector() = %x, want %x", got, want)
	}
}

func TestMalformedLengthsAreRefused(t *testing.T) {
	for name, input := range map[string]string{
		"zero in two bytes":         "4000",
		"63 in two bytes":           "403f",
		"zero in four bytes":        "80000000",
		"63 in four bytes":          "8000003f",
		"16383 in four bytes":       "80003fff",
		"reserved prefix":           "c0",
		"reserved prefix, all ones": "ffffffffffffffff",
		"eight bytes, as in QUIC":   "c2197c5eff14e88c",
	} {
		content := bytes.Repeat([]byte{0}, 20_000)
		r := wire.NewReader(append(unhex(t, input), content...))
		if got := r.Vector(); got != nil {
			t.Errorf("%s: Vector() = %d bytes, want nil", name, len(got))
		}
		if err := r.Err(); !errors.Is(err, wire.ErrLength) {
			t.Errorf("%s: Err() = %v, want %v", name, err, wire.ErrLength)
		}
	}
}

func TestALengthBeyondTheInputIsTruncation(t *testing.T) {
	for _, l := range lengths[1:] {
		r := wire.NewReader(unhex(t, l.encoded))
		if r.Vector(); !errors.Is(r.Err(), wire.ErrTruncated) {
			t.Errorf("length %d and no content: Err() = %v, want %v", l.n, r.Err(), wire.ErrTruncated)
		}
	}
}

// record has one field for each method of a Reader.
type record struct {
	u8         uint8
	u16        uint16
	u32        uint32
	u64        uint64
	fixed      []byte
	vector     []byte
	inSub      uint16
	emptyInSub []byte
}

const encodedRecord = "01" + "0203" + "04050607" + "08090a0b0c0d0e0f" + "101112" + "03aabbcc" + "03" + "131400"

func readRecord(b []byte) (v record, err error) {
	r := wire.NewReader(b)
	v.u8, v.u16, v.u32, v.u64 = r.Uint8(), r.Uint16(), r.Uint32(), r.Uint64()
	v.fixed, v.vector = r.Bytes(3), r.Vector()
	sub := r.Sub()
	v.inSub, v.emptyInSub = sub.Uint16(), sub.Vector()
	r.Fail(sub.Finish())
	return v, r.Finish()
}

func TestARecordIsReadInOrder(t *testing.T) {
	v, err := readRecord(unhex(t, encodedRecord))
	if err != nil {
		t.Fatalf("readRecord() err = %v, want nil", err)
	}
	if v.u8 != 0x01 || v.u16 != 0x0203 || v.u32 != 0x04050607 || v.u64 != 0x08090A0B0C0D0E0F {
		t.Errorf("integers = %x %x %x %x", v.u8, v.u16, v.u32, v.u64)
	}
	if !bytes.Equal(v.fixed, []byte{0x10, 0x11, 0x12}) || !bytes.Equal(v.vector, []byte{0xAA, 0xBB, 0xCC}) {
		t.Errorf("bytes = %x, vector = %x", v.fixed, v.vector)
	}
	if v.inSub != 0x1314 || v.emptyInSub == nil || len(v.emptyInSub) != 0 {
		t.Errorf("in the sub-reader: %x and %#v, want 1314 and an empty vector", v.inSub, v.emptyInSub)
	}
}

func TestInputCutAnywhereIsAnError(t *testing.T) {
	whole := unhex(t, encodedRecord)
	for n := range whole {
		if _, err := readRecord(whole[:n]); !errors.Is(err, wire.ErrTruncated) {
			t.Errorf("first %d of %d bytes: err = %v, want %v", n, len(whole), err, wire.ErrTruncated)
		}
	}
	if _, err := readRecord(append(whole, 0)); !errors.Is(err, wire.ErrTrailing) {
		t.Errorf("one more byte: err = %v, want %v", err, wire.ErrTrailing)
	}
}

func TestTheFirstErrorStays(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	r := wire.NewReader([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	r.Fail(first)
	r.Fail(second)
	if r.Uint8() != 0 || r.Uint16() != 0 || r.Uint32() != 0 || r.Uint64() != 0 || r.Bytes(1) != nil || r.Vector() != nil {
		t.Error("something was read after an error")
	}
	if r.Len() != 0 {
		t.Errorf("Len() after an error = %d, want 0", r.Len())
	}
	sub := r.Sub()
	for name, err := range map[string]error{"Err()": r.Err(), "Finish()": r.Finish(), "Err() of Sub()": sub.Err()} {
		if err != first {
			t.Errorf("%s = %v, want %v", name, err, first)
		}
	}
}

func TestFailWithoutAnErrorChangesNothing(t *testing.T) {
	r := wire.NewReader([]byte{7})
	r.Fail(nil)
	if got := r.Uint8(); got != 7 || r.Finish() != nil {
		t.Errorf("Uint8() = %d, Finish() = %v, want 7 and nil", got, r.Err())
	}
}

func TestBytesOfANegativeLengthIsAnError(t *testing.T) {
	r := wire.NewReader([]byte{1, 2})
	if got := r.Bytes(-1); got != nil || !errors.Is(r.Err(), wire.ErrTruncated) {
		t.Errorf("Bytes(-1) = %x, Err() = %v, want nil and %v", got, r.Err(), wire.ErrTruncated)
	}
}

// What is read aliases the input, but appending to it must not overwrite the input after it.
func TestWhatIsReadCanBeAppendedTo(t *testing.T) {
	input := []byte{2, 0xAA, 0xBB, 0xCC}
	r := wire.NewReader(input)
	v := r.Vector()
	if &v[0] != &input[1] {
		t.Error("Vector() is a copy, want an alias")
	}
	_ = append(v, 0xFF)
	if input[3] != 0xCC {
		t.Errorf("the byte after the vector is %x, want cc", input[3])
	}
}

func FuzzVector(f *testing.F) {
	for _, l := range lengths {
		f.Add(unhex(f, l.encoded))
	}
	f.Add([]byte{0xC0})
	f.Add([]byte{0x40, 0x3F})
	f.Add(wire.AppendVector([]byte(nil), make([]byte, 64)))
	f.Fuzz(func(t *testing.T, input []byte) {
		r := wire.NewReader(input)
		v := r.Vector()
		if r.Err() != nil {
			return
		}
		rest := r.Bytes(r.Len())
		if got := append(wire.AppendVector(nil, v), rest...); !bytes.Equal(got, input) {
			t.Errorf("AppendVector(Vector()) and the rest of %x = %x", input, got)
		}
	})
}

// FuzzReader takes the operations from the first half of the input.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07"))
	f.Add(append([]byte{0, 1, 2, 3, 0x34, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7}, unhex(f, encodedRecord)...))
	f.Fuzz(func(t *testing.T, input []byte) {
		operations, input := input[:len(input)/2], input[len(input)/2:]
		r := wire.NewReader(input)
		for _, op := range operations {
			before, failed := r.Len(), r.Err() != nil
			apply(r, op)
			if r.Len() > before || failed && r.Err() == nil {
				t.Fatalf("operation %d: %d bytes left after %d, error %v", op, r.Len(), before, r.Err())
			}
		}
		if err := r.Finish(); err == nil && r.Len() > 0 {
			t.Errorf("Finish() err = nil with %d bytes left", r.Len())
		}
	})
}

func apply(r *wire.Reader, op byte) {
	switch op % 8 {
	case 0:
		r.Uint8()
	case 1:
		r.Uint16()
	case 2:
		r.Uint32()
	case 3:
		r.Uint64()
	case 4:
		r.Bytes(int(op) / 8)
	case 5:
		r.Vector()
	case 6:
		sub := r.Sub()
		sub.Vector()
		r.Fail(sub.Err())
	}
}

func BenchmarkRead(b *testing.B) {
	input := unhex(b, encodedRecord)
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readRecord(input); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendVector(b *testing.B) {
	out, v := make([]byte, 0, 256), make([]byte, 65)
	b.SetBytes(int64(len(v)))
	b.ReportAllocs()
	for b.Loop() {
		out = wire.AppendVector(out[:0], v)
	}
}
