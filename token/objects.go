package token

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// ObjectClass is what an object is (CKA_CLASS; PKCS#11, Section 4.2).
type ObjectClass uint

// String returns the name of the constant in PKCS#11, such as "CKO_PRIVATE_KEY".
func (c ObjectClass) String() string {
	if name, ok := objectClasses[c]; ok {
		return name
	}
	return fmt.Sprintf("CKO_0x%08X", uint(c))
}

// MarshalText returns the name; JSON uses it.
func (c ObjectClass) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// The classes of keys.
const (
	ClassPublicKey  ObjectClass = pkcs11.CKO_PUBLIC_KEY
	ClassPrivateKey ObjectClass = pkcs11.CKO_PRIVATE_KEY
	ClassSecretKey  ObjectClass = pkcs11.CKO_SECRET_KEY
)

var objectClasses = map[ObjectClass]string{
	pkcs11.CKO_DATA:        "CKO_DATA",
	pkcs11.CKO_CERTIFICATE: "CKO_CERTIFICATE",
	ClassPublicKey:         "CKO_PUBLIC_KEY",
	ClassPrivateKey:        "CKO_PRIVATE_KEY",
	ClassSecretKey:         "CKO_SECRET_KEY",
}

// classOf is CKA_CLASS, or a number that no class has.
func classOf(v engine.Values) ObjectClass {
	if n, ok := v.Number(pkcs11.CKA_CLASS); ok {
		return ObjectClass(n)
	}
	return ^ObjectClass(0)
}

// ObjectInfo describes an object of any kind, whoever made it.
type ObjectInfo struct {
	Class      ObjectClass   `json:"class"`
	KeyType    *uint         `json:"key_type,omitempty"` // CKA_KEY_TYPE; nil: it is not a key
	ID         []byte        `json:"id,omitempty"`       // CKA_ID
	Label      string        `json:"label,omitempty"`    // CKA_LABEL
	Attributes KeyAttributes `json:"attributes"`         // nil if the object has none
}

// Objects describes every object that the sessions of this login see: those of the token, and the
// session objects of this process while they last. It leaves out an object that is destroyed
// meanwhile. It may take long if there are many.
func (t *Token) Objects(ctx context.Context) ([]ObjectInfo, error) {
	infos, err := do(ctx, t, session.objects)
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	return infos, nil
}

func (s session) objects() ([]ObjectInfo, error) {
	// Without the login only public objects would be found, and taken for all.
	if err := s.RequireLogin(); err != nil {
		return nil, err
	}
	found, err := s.Find()
	if err != nil {
		return nil, err
	}
	infos := make([]ObjectInfo, 0, len(found))
	for _, o := range found {
		info, err := s.describeObject(o)
		if errors.Is(err, engine.CKR_OBJECT_HANDLE_INVALID) {
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (s session) describeObject(o pkcs11.ObjectHandle) (ObjectInfo, error) {
	v, err := s.Read(o, append([]uint{pkcs11.CKA_CLASS, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_ID, pkcs11.CKA_LABEL}, keyFlags...)...)
	if err != nil {
		return ObjectInfo{}, err
	}
	class, _ := v.Number(pkcs11.CKA_CLASS)
	info := ObjectInfo{Class: ObjectClass(class), ID: v[pkcs11.CKA_ID], Label: string(v[pkcs11.CKA_LABEL]), Attributes: s.keyAttributes(v)}
	if keyType, isKey := v.Number(pkcs11.CKA_KEY_TYPE); isKey {
		info.KeyType = &keyType
	}
	return info, nil
}

// DestroyByID destroys the objects of the token that have this CKA_ID and are of one of the
// classes (C_DestroyObject), in the order of the classes, also if only one half of a key pair is
// left. It returns how many there were. It fails with ErrAmbiguousKey if there are several of one
// class, and destroys none of them.
func (t *Token) DestroyByID(ctx context.Context, id []byte, classes ...ObjectClass) (n int, err error) {
	if len(id) == 0 {
		return 0, errors.New("destroy objects: no id given")
	}
	n, err = do(ctx, t, func(s session) (int, error) { return s.destroyByID(id, classes) })
	if err == nil && n > 0 {
		err = t.engine.RenewSessions()
	}
	if err != nil {
		return n, fmt.Errorf("destroy objects %x: %w", id, err)
	}
	return n, nil
}

func (s session) destroyByID(id []byte, classes []ObjectClass) (n int, err error) {
	for _, class := range classes {
		found, err := s.Find(attr(pkcs11.CKA_CLASS, uint(class)), attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, id))
		if err != nil {
			return n, err
		}
		if len(found) > 1 { // one of them is somebody else's
			return n, fmt.Errorf("%w: %d of %v", ErrAmbiguousKey, len(found), class)
		}
		for _, o := range found {
			if err := s.Destroy(o); err != nil {
				return n, engine.Once(err)
			}
			n++
		}
	}
	return n, nil
}

// DiscardUnfinished destroys the secret keys of this CKA_ID and CKA_LABEL that the token was
// stopped in the making of: they exist, and CKA_LOCAL is false. SoftHSM sets it so until it has
// made the key.
func (t *Token) DiscardUnfinished(ctx context.Context, id []byte, label string) error {
	err := run(ctx, t, func(s session) error {
		found, err := s.Find(attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, id), attr(pkcs11.CKA_LABEL, label))
		if err != nil {
			return err
		}
		for _, o := range found {
			local, err := s.Flag(o, pkcs11.CKA_LOCAL)
			if err != nil {
				return err
			}
			if local == nil || *local {
				continue
			}
			if err := s.Destroy(o); err != nil {
				return engine.Once(err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("discard unfinished key %x: %w", id, err)
	}
	return nil
}
