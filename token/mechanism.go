package token

// Constants of PKCS#11 3.0 that miekg/pkcs11 lacks.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
	ckmAESKeyWrapPad       = 0x210A
	ckmAESKeyWrapKWP       = 0x210B
	ckkECEdwards           = 0x40
)

// ckaNSSDB is an attribute of NSS: the public point of an EC private key, not encoded.
const ckaNSSDB = 0xD5A0DB00
