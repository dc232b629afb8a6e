package token

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

const keepProbe = "keep what is not extractable"

// probeKeep checks that C_WrapKey refuses keys that are not extractable. If it does not, as in
// NSS softoken, whoever has the PIN can take out every key, whatever its attributes.
func probeKeep(s session) error {
	wrapping, err := s.generateAES(aesTemplate(false, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP))
	if err != nil {
		return keeps(s, err) // there is nothing to wrap with
	}
	secret, err := s.generateAES(aesTemplate(false, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT))
	if err != nil {
		return err
	}
	_, private, err := s.generateOn(P256, ofSession(keyPairTemplates(KeyPairSpec{Curve: P256, ID: idOrRandom(nil)})))
	if err != nil {
		return err
	}
	for _, m := range keyWraps {
		for _, key := range []pkcs11.ObjectHandle{private, secret} {
			_, err := s.wrap(m, wrapping, key)
			if err == nil {
				return fmt.Errorf("C_WrapKey by %v gives a key out whose CKA_EXTRACTABLE is false", m)
			}
			if err := keeps(s, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// keeps ignores the refusal of a call, which is what is wanted.
func keeps(s session, err error) error {
	if _, refused := errors.AsType[*Error](err); refused && s.Quirks().StepOf(err) == engine.StepNone {
		return nil
	}
	return err
}
