package peer;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;

/** The two directions of the protocol: one JSON object a line. */
final class Lines {
    private final BufferedReader in;
    private final OutputStream out;

    Lines(InputStream in, OutputStream out) {
        this.in = new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8));
        this.out = out;
    }

    /** Returns the next line, or null at the end. */
    String read() throws IOException {
        return in.readLine();
    }

    void write(JsonObject object) throws IOException {
        out.write((object + "\n").getBytes(StandardCharsets.UTF_8));
        out.flush();
    }

    /** Lets the reader of this peer's replies sign an encoded SignContent. */
    byte[] sign(byte[] content) throws IOException {
        JsonObject wanted = new JsonObject();
        wanted.addProperty("sign", HexFormat.of().formatHex(content));
        write(wanted);
        String line = read();
        if (line == null) {
            throw new IOException("the input ended where a signature was awaited");
        }
        JsonObject answer = JsonParser.parseString(line).getAsJsonObject();
        if (!answer.has("signature")) {
            throw new IOException("no signature: " + answer.get("error"));
        }
        return HexFormat.of().parseHex(answer.get("signature").getAsString());
    }
}
