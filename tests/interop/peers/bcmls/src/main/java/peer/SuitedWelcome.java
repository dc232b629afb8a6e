package peer;

import java.io.IOException;
import java.util.List;
import org.bouncycastle.crypto.InvalidCipherTextException;
import org.bouncycastle.mls.KeyScheduleEpoch;
import org.bouncycastle.mls.codec.GroupInfo;
import org.bouncycastle.mls.codec.GroupSecrets;
import org.bouncycastle.mls.codec.KeyPackage;
import org.bouncycastle.mls.codec.Welcome;
import org.bouncycastle.mls.crypto.MlsCipherSuite;

/**
 * A decoded Welcome with another implementation of its cipher suite. A group that is
 * joined takes its suite, and with it its signer, from the Welcome, and the library
 * decodes a Welcome with its own implementation.
 */
final class SuitedWelcome extends Welcome {
    private final MlsCipherSuite suite;
    private final Welcome decoded;

    SuitedWelcome(MlsCipherSuite suite, Welcome decoded) throws IOException, InvalidCipherTextException {
        // The class has no other public constructor: it makes a Welcome for nobody,
        // which is not used.
        super(suite, new byte[suite.getKDF().getHashLength()], List.of(), new byte[0]);
        this.suite = suite;
        this.decoded = decoded;
    }

    @Override
    public MlsCipherSuite getSuite() {
        return suite;
    }

    @Override
    public int find(KeyPackage keyPackage) throws IOException {
        return decoded.find(keyPackage);
    }

    @Override
    public GroupSecrets decryptSecrets(int index, byte[] initPrivateKey) throws InvalidCipherTextException, IOException {
        return decoded.decryptSecrets(index, initPrivateKey);
    }

    @Override
    public GroupInfo decrypt(byte[] joinerSecret, List<KeyScheduleEpoch.PSKWithSecret> psks)
            throws IOException, InvalidCipherTextException {
        return decoded.decrypt(joinerSecret, psks);
    }
}
