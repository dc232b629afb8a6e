package peer;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.io.InputStream;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.jar.JarInputStream;
import java.util.jar.Manifest;
import org.bouncycastle.crypto.AsymmetricCipherKeyPair;
import org.bouncycastle.mls.TreeKEM.LeafNode;
import org.bouncycastle.mls.TreeKEM.LifeTime;
import org.bouncycastle.mls.TreeKEM.TreeKEMPublicKey;
import org.bouncycastle.mls.codec.Capabilities;
import org.bouncycastle.mls.codec.Credential;
import org.bouncycastle.mls.codec.KeyPackage;
import org.bouncycastle.mls.codec.MLSInputStream;
import org.bouncycastle.mls.codec.MLSMessage;
import org.bouncycastle.mls.codec.MLSOutputStream;
import org.bouncycastle.mls.codec.WireFormat;
import org.bouncycastle.mls.crypto.MlsCipherSuite;
import org.bouncycastle.mls.crypto.Secret;
import org.bouncycastle.mls.protocol.Group;

/** Answers requests with the library. */
final class Peer {
    private static final List<String> NOTES = List.of(
            "A key package is validated by KeyPackage.verify and LeafNode.verifyLifetime, which return only false.",
            "A group refuses a key package with \"Invalid proposal\", whichever check failed.",
            "A joined group takes its signer from the Welcome's cipher suite: the peer hands it a subclass of Welcome whose"
                    + " suite asks for signatures.",
            "The library has no method that commits an added member in one step: the peer sends an Add proposal to its own"
                    + " group and commits that, with a path.");

    /** The identity of own clients, in the form that core-crypto needs to read their messages. */
    private static final String IDENTITY = "00000000-0000-4000-8000-000000000000:1@bcmls.example";

    private static final HexFormat HEX = HexFormat.of();

    private final Lines lines;
    private final SecureRandom random = new SecureRandom();
    private final Map<String, Group> groups = new HashMap<>();

    Peer(Lines lines) {
        this.lines = lines;
    }

    JsonObject answer(String line) {
        JsonObject reply;
        try {
            reply = perform(JsonParser.parseString(line).getAsJsonObject());
            reply.addProperty("ok", true);
        } catch (Unsupported e) {
            reply = refusal(e.getMessage());
            reply.addProperty("unsupported", true);
        } catch (Throwable e) {
            if (e instanceof RuntimeException || e instanceof Error) {
                e.printStackTrace();
            }
            reply = refusal(text(e));
        }
        return reply;
    }

    private static JsonObject refusal(String error) {
        JsonObject reply = new JsonObject();
        reply.addProperty("ok", false);
        reply.addProperty("error", error);
        return reply;
    }

    /** The library's own errors have the class Exception; of others, the class says more than the message. */
    private static String text(Throwable e) {
        boolean own = e.getClass() == Exception.class && e.getMessage() != null;
        return own ? e.getMessage() : e.toString();
    }

    private JsonObject perform(JsonObject request) throws Exception {
        String operation = string(request, "op");
        switch (operation) {
            case "hello":
                return hello();
            case "keyPackage":
                return keyPackage(request);
            case "validate":
                return validate(request);
            case "add":
                return add(request);
            case "join":
                return join(request);
            case "commit":
                return commit(request);
            case "process":
                return process(request);
            case "send":
                return send(request);
            case "receive":
                return receive(request);
            default:
                throw new Unsupported("no operation " + operation);
        }
    }

    private static JsonObject hello() throws IOException {
        JsonObject reply = new JsonObject();
        reply.addProperty("name", "bcmls");
        reply.addProperty("version", version());
        JsonArray suites = new JsonArray();
        for (short suite : MlsCipherSuite.ALL_SUPPORTED_SUITES) {
            suites.add(suite & 0xFFFF);
        }
        reply.add("suites", suites);
        reply.addProperty("signer", "external");
        JsonArray notes = new JsonArray();
        NOTES.forEach(notes::add);
        reply.add("notes", notes);
        return reply;
    }

    /** Reads the version from the manifest of the library's jar. */
    private static String version() throws IOException {
        URL jar = MLSMessage.class.getProtectionDomain().getCodeSource().getLocation();
        try (InputStream in = jar.openStream(); JarInputStream entries = new JarInputStream(in)) {
            Manifest manifest = entries.getManifest();
            String version = manifest == null ? null : manifest.getMainAttributes().getValue("Bundle-Version");
            if (version == null) {
                throw new IOException(jar + " does not tell its version");
            }
            return version;
        }
    }

    /** A client as the library makes it by default, with its private keys. */
    private record Client(KeyPackage keyPackage, AsymmetricCipherKeyPair encryption, byte[] signature) {
    }

    private static Client newClient(MlsCipherSuite suite) throws Exception {
        AsymmetricCipherKeyPair init = suite.getHPKE().generatePrivateKey();
        AsymmetricCipherKeyPair encryption = suite.getHPKE().generatePrivateKey();
        AsymmetricCipherKeyPair signature = suite.generateSignatureKeyPair();
        byte[] key = suite.serializeSignaturePrivateKey(signature.getPrivate());
        LeafNode leaf = new LeafNode(suite,
                suite.getHPKE().serializePublicKey(encryption.getPublic()),
                suite.serializeSignaturePublicKey(signature.getPublic()),
                Credential.forBasic(IDENTITY.getBytes(StandardCharsets.UTF_8)),
                new Capabilities(), new LifeTime(), List.of(), key);
        KeyPackage keyPackage = new KeyPackage(suite,
                suite.getHPKE().serializePublicKey(init.getPublic()), leaf, List.of(), key);
        return new Client(keyPackage, encryption, key);
    }

    private JsonObject keyPackage(JsonObject request) throws Exception {
        Client client = newClient(suite(request));
        JsonObject reply = new JsonObject();
        reply.addProperty("keyPackage", encode(MLSMessage.keyPackage(client.keyPackage())));
        return reply;
    }

    private static JsonObject validate(JsonObject request) throws Exception {
        KeyPackage keyPackage = decodeKeyPackage(request);
        if (!keyPackage.verify()) {
            throw new Exception("KeyPackage.verify: false");
        }
        if (!keyPackage.getLeafNode().verifyLifetime()) {
            throw new Exception("LeafNode.verifyLifetime: false");
        }
        return new JsonObject();
    }

    private JsonObject add(JsonObject request) throws Exception {
        MlsCipherSuite suite = suite(request);
        KeyPackage member = decodeKeyPackage(request);
        Client client = newClient(suite);
        Group group = new Group(bytes(16), suite, client.encryption(), client.signature(),
                client.keyPackage().getLeafNode(), List.of());
        MLSMessage proposal = group.add(member, new Group.MessageOptions());
        group.handle(MLSOutputStream.encode(proposal), null);
        Group.GroupWithMessage committed = commit(group);
        MLSMessage welcome = new MLSMessage(WireFormat.mls_welcome);
        welcome.welcome = committed.message.welcome;
        JsonObject reply = keep(committed.group);
        reply.addProperty("welcome", encode(welcome));
        return reply;
    }

    private JsonObject join(JsonObject request) throws Exception {
        KeyPackage keyPackage = decodeKeyPackage(request);
        MLSMessage message = decode(octets(request, "welcome"));
        if (message.wireFormat != WireFormat.mls_welcome) {
            throw new Exception("the MLSMessage is no Welcome but " + message.wireFormat);
        }
        MlsCipherSuite suite = Suites.outside(
                message.welcome.getSuite(), keyPackage.getLeafNode().getSignatureKey(), lines);
        TreeKEMPublicKey tree = request.has("ratchetTree")
                ? (TreeKEMPublicKey) MLSInputStream.decode(octets(request, "ratchetTree"), TreeKEMPublicKey.class)
                : null;
        Group group = new Group(
                octets(request, "initPrivateKey"),
                suite.getHPKE().deserializePrivateKey(octets(request, "encryptionPrivateKey"),
                        keyPackage.getLeafNode().getEncryptionKey()),
                new byte[0], // the signature key is outside
                keyPackage,
                new SuitedWelcome(suite, message.welcome),
                tree,
                Map.of(),
                Map.of());
        return keep(group);
    }

    /** Commits the group's proposals, if it has any, with a path. */
    private Group.GroupWithMessage commit(Group group) throws Exception {
        return group.commit(
                new Secret(bytes(group.getSuite().getKDF().getHashLength())),
                new Group.CommitOptions(new ArrayList<>(), true, true, null),
                new Group.MessageOptions(),
                new Group.CommitParameters(Group.NORMAL_COMMIT_PARAMS));
    }

    private JsonObject commit(JsonObject request) throws Exception {
        Group.GroupWithMessage committed = commit(group(request));
        JsonObject reply = next(request, committed.group);
        reply.addProperty("message", encode(committed.message));
        return reply;
    }

    private JsonObject process(JsonObject request) throws Exception {
        Group group = group(request).handle(octets(request, "message"), null);
        if (group == null) {
            throw new Exception("the MLSMessage is no commit");
        }
        return next(request, group);
    }

    private JsonObject send(JsonObject request) throws Exception {
        byte[] data = request.has("data") ? octets(request, "data") : new byte[0];
        MLSMessage message = group(request).protect(new byte[0], data, 0);
        JsonObject reply = new JsonObject();
        reply.addProperty("message", encode(message));
        return reply;
    }

    private JsonObject receive(JsonObject request) throws Exception {
        byte[][] authenticatedAndData = group(request).unprotect(decode(octets(request, "message")));
        JsonObject reply = new JsonObject();
        reply.addProperty("data", HEX.formatHex(authenticatedAndData[1]));
        return reply;
    }

    /** Gives the group a name for send and receive, and begins the reply. */
    private JsonObject keep(Group group) {
        String name = String.valueOf(groups.size() + 1);
        groups.put(name, group);
        JsonObject reply = epoch(group);
        reply.addProperty("group", name);
        return reply;
    }

    /** Replaces the request's group with its next epoch, and begins the reply. */
    private JsonObject next(JsonObject request, Group group) {
        groups.put(string(request, "group"), group);
        return epoch(group);
    }

    private static JsonObject epoch(Group group) {
        JsonObject reply = new JsonObject();
        reply.addProperty("epochAuthenticator", HEX.formatHex(group.getEpochAuthenticator()));
        return reply;
    }

    private Group group(JsonObject request) {
        String name = string(request, "group");
        Group group = groups.get(name);
        if (group == null) {
            throw new IllegalArgumentException("no group " + name);
        }
        return group;
    }

    private byte[] bytes(int length) {
        byte[] bytes = new byte[length];
        random.nextBytes(bytes);
        return bytes;
    }

    private static MlsCipherSuite suite(JsonObject request) throws Exception {
        JsonElement suite = request.get("suite");
        if (suite == null) {
            throw new IllegalArgumentException("no suite in the request");
        }
        return Suites.own(suite.getAsInt());
    }

    private static KeyPackage decodeKeyPackage(JsonObject request) throws Exception {
        MLSMessage message = decode(octets(request, "keyPackage"));
        if (message.wireFormat != WireFormat.mls_key_package) {
            throw new Exception("the MLSMessage is no key package but " + message.wireFormat);
        }
        return message.keyPackage;
    }

    private static MLSMessage decode(byte[] encoded) throws IOException {
        return (MLSMessage) MLSInputStream.decode(encoded, MLSMessage.class);
    }

    private static String encode(MLSMessage message) throws IOException {
        return HEX.formatHex(MLSOutputStream.encode(message));
    }

    private static String string(JsonObject request, String name) {
        JsonElement element = request.get(name);
        if (element == null) {
            throw new IllegalArgumentException("no " + name + " in the request");
        }
        return element.getAsString();
    }

    private static byte[] octets(JsonObject request, String name) {
        return HEX.parseHex(string(request, name));
    }
}
