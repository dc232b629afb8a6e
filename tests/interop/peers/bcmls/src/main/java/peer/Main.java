package peer;

import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;

/** The peer for BouncyCastle's bcmls. ../README.md describes its protocol. */
public final class Main {
    private Main() {
    }

    public static void main(String[] arguments) throws IOException {
        FileOutputStream replies = new FileOutputStream(FileDescriptor.out);
        // What a library prints is not a reply.
        System.setOut(System.err);
        Lines lines = new Lines(new FileInputStream(FileDescriptor.in), replies);
        Peer peer = new Peer(lines);
        for (String line = lines.read(); line != null; line = lines.read()) {
            lines.write(peer.answer(line));
        }
    }
}
