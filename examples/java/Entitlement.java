// Asks tollgate for a proof at any time, and checks it with the program's own copy of the public key.
//
//     java Entitlement.java --product CODE --key 1=keys/1.pem --challenge http://127.0.0.1:8421
//
// Needs nothing but Java 17. Copy the class into your program and call `challenge` before you serve anybody: it throws
// NotEntitled unless AWS Marketplace itself signed a nonce that this program has just made up, for this product.

import java.io.IOException;
import java.io.InputStream;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.spec.MGF1ParameterSpec;
import java.security.spec.PSSParameterSpec;
import java.security.spec.X509EncodedKeySpec;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public final class Entitlement {
    private static final int TOKEN_CHARS_MAX = 16 * 1024;
    private static final int ANSWER_BYTES_MAX = 64 * 1024;
    private static final Duration ANSWER_TIMEOUT = Duration.ofSeconds(60);

    private Entitlement() {}

    /** Nothing proves that this buyer may run this product here. */
    public static final class NotEntitled extends Exception {
        NotEntitled(String message) {
            super(message);
        }
    }

    /**
     * Throws NotEntitled unless the sidecar at `url` gets a nonce signed that this program has just made up. Nothing but
     * the signature is believed: a false sidecar has none. `keys` maps key versions to the keys.
     */
    public static void challenge(String url, String productCode, Map<String, PublicKey> keys)
            throws NotEntitled, InterruptedException {
        byte[] random = new byte[32];
        new SecureRandom().nextBytes(random);
        String nonce = Base64.getUrlEncoder().withoutPadding().encodeToString(random);
        Object token = ask(url + "/v1/entitlement/challenge", nonce).get("signature");
        if (!verify(token, productCode, keys).equals(nonce)) {
            throw new NotEntitled("the signature answers another nonce");
        }
    }

    /** The nonce that AWS Marketplace signed for this product; throws NotEntitled where it did not. */
    public static String verify(Object token, String productCode, Map<String, PublicKey> keys) throws NotEntitled {
        if (!(token instanceof String text) || text.length() > TOKEN_CHARS_MAX) {
            throw new NotEntitled("there is no signature");
        }
        String[] parts = text.split("\\.", -1);
        if (parts.length != 3) {
            throw new NotEntitled("there is no signature");
        }
        if (!"PS256".equals(object(parts[0]).get("alg"))) {
            throw new NotEntitled("the signature's algorithm is not PS256");
        }
        Map<String, Object> claims = object(parts[1]);
        String version = claim(claims, "publicKeyVersion", "PublicKeyVersion");
        PublicKey key = keys.get(version);
        if (key == null) {
            throw new NotEntitled("there is no public key of version " + version);
        }
        if (!isSigned(parts[0] + "." + parts[1], decode(parts[2]), key)) {
            throw new NotEntitled("the signature does not verify");
        }
        if (!claim(claims, "productCode", "ProductCode").equals(productCode)) {
            throw new NotEntitled("the signature is for another product");
        }
        return claim(claims, "nonce", "Nonce");
    }

    /** Reads a public key from an SPKI PEM text. */
    public static PublicKey readKey(String pem) throws GeneralSecurityException {
        String body = pem.replaceAll("-----(BEGIN|END) PUBLIC KEY-----", "").replaceAll("\\s", "");
        return KeyFactory.getInstance("RSA").generatePublic(new X509EncodedKeySpec(Base64.getDecoder().decode(body)));
    }

    private static boolean isSigned(String signed, byte[] signature, PublicKey key) {
        try {
            Signature verifier = Signature.getInstance("RSASSA-PSS");
            verifier.setParameter(new PSSParameterSpec("SHA-256", "MGF1", MGF1ParameterSpec.SHA256, 32, 1));
            verifier.initVerify(key);
            verifier.update(signed.getBytes(StandardCharsets.US_ASCII));
            return verifier.verify(signature);
        } catch (GeneralSecurityException malformed) {
            return false;
        }
    }

    /** The answer of the sidecar on this host, to which no proxy leads. */
    private static Map<String, Object> ask(String url, String nonce) throws NotEntitled, InterruptedException {
        HttpClient client = HttpClient.newBuilder()
                .proxy(ProxySelector.of(null))
                .version(HttpClient.Version.HTTP_1_1)
                .build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(url))
                .timeout(ANSWER_TIMEOUT)
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString("{\"nonce\":\"" + nonce + "\"}"))
                .build();
        int status;
        String body;
        try {
            HttpResponse<InputStream> answer = client.send(request, HttpResponse.BodyHandlers.ofInputStream());
            status = answer.statusCode();
            try (InputStream stream = answer.body()) {
                body = new String(stream.readNBytes(ANSWER_BYTES_MAX), StandardCharsets.UTF_8);
            }
        } catch (IOException error) {
            throw new NotEntitled("the sidecar does not answer: " + error);
        }
        if (status != 200) {
            throw new NotEntitled("the sidecar answers " + status + ": " + body.strip());
        }
        return new Json(body).object();
    }

    private static String claim(Map<String, Object> claims, String... spellings) throws NotEntitled {
        String found = null;
        for (String spelling : spellings) {
            if (!claims.containsKey(spelling)) {
                continue;
            }
            String value = String.valueOf(claims.get(spelling));
            if (found != null && !found.equals(value)) {
                throw new NotEntitled("the signature has no single " + spellings[0]);
            }
            found = value;
        }
        if (found == null) {
            throw new NotEntitled("the signature has no single " + spellings[0]);
        }
        return found;
    }

    private static Map<String, Object> object(String part) throws NotEntitled {
        return new Json(new String(decode(part), StandardCharsets.UTF_8)).object();
    }

    private static byte[] decode(String part) throws NotEntitled {
        try {
            return Base64.getUrlDecoder().decode(part);
        } catch (IllegalArgumentException error) {
            throw new NotEntitled("the signature is not a JWT");
        }
    }

    /** As much of JSON as an answer and a JWT need; Java itself brings none. Numbers stay text. */
    private static final class Json {
        private static final int DEPTH_MAX = 16;
        private final String text;
        private int at;
        private int depth;

        Json(String text) {
            this.text = text;
        }

        Map<String, Object> object() throws NotEntitled {
            Object value = value();
            skipSpace();
            if (at != text.length() || !(value instanceof Map<?, ?>)) {
                throw broken();
            }
            Map<String, Object> members = new LinkedHashMap<>();
            ((Map<?, ?>) value).forEach((name, member) -> members.put((String) name, member));
            return members;
        }

        private Object value() throws NotEntitled {
            skipSpace();
            if (++depth > DEPTH_MAX) {
                throw broken();
            }
            Object value = switch (peek()) {
                case '{' -> members();
                case '[' -> elements();
                case '"' -> string();
                default -> word();
            };
            depth--;
            return value;
        }

        private Map<String, Object> members() throws NotEntitled {
            Map<String, Object> members = new LinkedHashMap<>();
            at++;
            while (!closes('}', members.isEmpty())) {
                skipSpace();
                String name = string();
                skipSpace();
                expect(':');
                if (members.containsKey(name)) {
                    throw new NotEntitled("a member stands twice");
                }
                members.put(name, value());
            }
            return members;
        }

        private List<Object> elements() throws NotEntitled {
            List<Object> elements = new ArrayList<>();
            at++;
            while (!closes(']', elements.isEmpty())) {
                elements.add(value());
            }
            return elements;
        }

        /** Whether the list ends here; else there is a comma, except before the first. */
        private boolean closes(char end, boolean first) throws NotEntitled {
            skipSpace();
            if (peek() == end) {
                at++;
                return true;
            }
            if (!first) {
                expect(',');
            }
            return false;
        }

        private String string() throws NotEntitled {
            expect('"');
            StringBuilder read = new StringBuilder();
            while (peek() != '"') {
                char next = text.charAt(at++);
                read.append(next == '\\' ? escaped() : next);
            }
            at++;
            return read.toString();
        }

        private char escaped() throws NotEntitled {
            char kind = peek();
            at++;
            return switch (kind) {
                case '"', '\\', '/' -> kind;
                case 'b' -> '\b';
                case 'f' -> '\f';
                case 'n' -> '\n';
                case 'r' -> '\r';
                case 't' -> '\t';
                case 'u' -> hexadecimal();
                default -> throw broken();
            };
        }

        private char hexadecimal() throws NotEntitled {
            int end = at + 4;
            if (end > text.length() || !text.substring(at, end).matches("[0-9A-Fa-f]{4}")) {
                throw broken();
            }
            char read = (char) Integer.parseInt(text.substring(at, end), 16);
            at = end;
            return read;
        }

        /** A number, true, false or null; null is null, all else its text. */
        private String word() throws NotEntitled {
            int start = at;
            while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) {
                at++;
            }
            String word = text.substring(start, at);
            if (!word.matches("true|false|null|-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?")) {
                throw broken();
            }
            return word.equals("null") ? null : word;
        }

        private void skipSpace() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
        }

        private char peek() throws NotEntitled {
            if (at >= text.length()) {
                throw broken();
            }
            return text.charAt(at);
        }

        private void expect(char wanted) throws NotEntitled {
            if (peek() != wanted) {
                throw broken();
            }
            at++;
        }

        private static NotEntitled broken() {
            return new NotEntitled("what the sidecar answers is not a JSON object");
        }
    }

    public static void main(String[] arguments) throws Exception {
        String product = null;
        String url = null;
        Map<String, PublicKey> keys = new LinkedHashMap<>();
        for (int index = 0; index + 1 < arguments.length; index += 2) {
            String value = arguments[index + 1];
            switch (arguments[index]) {
                case "--product" -> product = value;
                case "--challenge" -> url = value;
                case "--key" -> {
                    String[] entry = value.split("=", 2);
                    keys.put(entry[0], readKey(Files.readString(Path.of(entry[1]))));
                }
                default -> throw new IllegalArgumentException("unknown flag " + arguments[index]);
            }
        }
        if (product == null || url == null || keys.isEmpty()) {
            System.err.println("usage: java Entitlement.java --product CODE --key VERSION=FILE --challenge URL");
            System.exit(2);
        }
        try {
            challenge(url, product, keys);
        } catch (NotEntitled error) {
            System.err.println("not entitled: " + error.getMessage());
            System.exit(1);
        }
        System.out.println("entitled: " + product);
    }
}
