package keypackage

func (v *validation) credential() {
	switch c := &v.leaf.Credential; c.Type {
	case CredentialBasic:
		if len(c.Identity) == 0 {
			v.find(identityEmpty, nil)
		}
	case CredentialX509:
		v.certificates()
	default:
		v.find(credentialUnknown, c.Type)
	}
}

func (v *validation) certificates() {
	chain, err := v.leaf.Credential.parseCertificates()
	switch {
	case err != nil:
		v.find(certificatesMalformed, err)
	case !certifies(chain[0], v.leaf.SignatureKey):
		v.find(certificateKeyMismatch, chain[0].PublicKeyAlgorithm)
	}
}
