package peer;

import java.io.IOException;
import java.util.Map;
import org.bouncycastle.crypto.AsymmetricCipherKeyPair;
import org.bouncycastle.crypto.params.AsymmetricKeyParameter;
import org.bouncycastle.mls.codec.MLSOutputStream;
import org.bouncycastle.mls.crypto.MlsCipherSuite;
import org.bouncycastle.mls.crypto.MlsSigner;
import org.bouncycastle.mls.crypto.bc.BcMlsSigner;

/** The library's cipher suites, unchanged and with a signer outside. */
final class Suites {
    /** The signature scheme of each suite, which MlsCipherSuite does not report. */
    private static final Map<Short, Integer> SCHEMES = Map.of(
            MlsCipherSuite.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, MlsSigner.ed25519,
            MlsCipherSuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256, MlsSigner.ecdsa_secp256r1_sha256,
            MlsCipherSuite.MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519, MlsSigner.ed25519,
            MlsCipherSuite.MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448, MlsSigner.ed448,
            MlsCipherSuite.MLS_256_DHKEMP521_AES256GCM_SHA512_P521, MlsSigner.ecdsa_secp521r1_sha512,
            MlsCipherSuite.MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448, MlsSigner.ed448,
            MlsCipherSuite.MLS_256_DHKEMP384_AES256GCM_SHA384_P384, MlsSigner.ecdsa_secp384r1_sha384);

    private Suites() {
    }

    /** Returns the suite of the library: a member signs with its private key. */
    static MlsCipherSuite own(int number) throws Exception {
        if (number < 0 || number > 0xFFFF) {
            throw new IllegalArgumentException("no cipher suite " + number);
        }
        return MlsCipherSuite.getSuite((short) number);
    }

    /** Returns the suite with a signer that requests each signature of the member with a public key. */
    static MlsCipherSuite outside(MlsCipherSuite suite, byte[] publicKey, Lines lines) {
        BcMlsSigner signer = new BcMlsSigner(SCHEMES.get(suite.getSuiteID())) {
            @Override
            public byte[] signWithLabel(byte[] priv, String label, byte[] content) throws IOException {
                return lines.sign(MLSOutputStream.encode(new MlsCipherSuite.GenericContent(label, content)));
            }

            // To sign a GroupInfo, as each commit does, the library makes a key pair of the member's
            // private key and compares its public key with the leaf's. Any key pair with the right public
            // key will do: nothing is signed with it.

            @Override
            public AsymmetricCipherKeyPair deserializePrivateKey(byte[] priv) {
                return generateSignatureKeyPair();
            }

            @Override
            public byte[] serializePublicKey(AsymmetricKeyParameter key) {
                return publicKey.clone();
            }
        };
        return new MlsCipherSuite(suite.getSuiteID(), signer, suite.getKDF(), suite.getAEAD(), suite.getHPKE());
    }
}
