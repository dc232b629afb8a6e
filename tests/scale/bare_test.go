package scale

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// bare uses the token of an installation through plain PKCS#11 calls: it measures the token's own
// share.
type bare struct {
	t       *testing.T
	ctx     *pkcs11.Ctx
	slot    uint
	session pkcs11.SessionHandle
	opened  time.Duration // from C_Initialize to the end of C_Login
}

func openBare(t *testing.T, i *program.Installation) *bare {
	t.Helper()
	t.Setenv("SOFTHSM2_CONF", filepath.Join(i.Dir, "softhsm2.conf"))
	module, err := softhsm.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	pin, err := os.ReadFile(filepath.Join(i.Dir, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{t: t, ctx: pkcs11.New(module)}
	start := time.Now()
	b.must(b.ctx.Initialize())
	slots, err := b.ctx.GetSlotList(true)
	b.must(err)
	for _, slot := range slots {
		info, err := b.ctx.GetTokenInfo(slot)
		b.must(err)
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			b.slot = slot
		}
	}
	b.session = b.open()
	b.must(b.ctx.Login(b.session, pkcs11.CKU_USER, string(bytes.TrimSpace(pin))))
	b.opened = time.Since(start)
	return b
}

func (b *bare) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bare) open() pkcs11.SessionHandle {
	s, err := b.ctx.OpenSession(b.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	b.must(err)
	return s
}

// close returns how long C_Finalize took.
func (b *bare) close() time.Duration {
	start := time.Now()
	b.must(b.ctx.Finalize())
	took := time.Since(start)
	b.ctx.Destroy()
	return took
}

// find finds the objects that have a CKA_ID, and returns how long that took.
func (b *bare) find(id []byte) ([]pkcs11.ObjectHandle, time.Duration) {
	start := time.Now()
	b.must(b.ctx.FindObjectsInit(b.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id)}))
	var all []pkcs11.ObjectHandle
	for {
		found, _, err := b.ctx.FindObjects(b.session, 64)
		b.must(err)
		if len(found) == 0 {
			break
		}
		all = append(all, found...)
	}
	b.must(b.ctx.FindObjectsFinal(b.session))
	return all, time.Since(start)
}

// sign signs n times with the private key among objects, and returns how long one signature took.
func (b *bare) sign(objects []pkcs11.ObjectHandle, n int) time.Duration {
	var key pkcs11.ObjectHandle
	for _, o := range objects {
		a, err := b.ctx.GetAttributeValue(b.session, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, nil)})
		b.must(err)
		if a[0].Value[0] == pkcs11.CKO_PRIVATE_KEY {
			key = o
		}
	}
	start := time.Now()
	for range n {
		b.must(b.ctx.SignInit(b.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, key))
		_, err := b.ctx.Sign(b.session, make([]byte, 32))
		b.must(err)
	}
	return time.Since(start) / time.Duration(n)
}

// generate makes n P-256 key pairs that stay in the token, with as many sessions as hsm-kp has, and
// returns how long that took.
func (b *bare) generate(n, sessions int) time.Duration {
	var all sync.WaitGroup
	work := make(chan int)
	start := time.Now()
	for range sessions {
		session := b.open()
		all.Go(func() {
			for range work {
				b.generateOne(session)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
	return time.Since(start)
}

func (b *bare) generateOne(session pkcs11.SessionHandle) {
	id := make([]byte, 16)
	rand.Read(id)
	common := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, "bare"),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
	}
	public := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, []byte{0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07}))
	private := append(common[:len(common):len(common)],
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false))
	_, _, err := b.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}, public, private)
	if err != nil {
		b.t.Error(err)
	}
}
