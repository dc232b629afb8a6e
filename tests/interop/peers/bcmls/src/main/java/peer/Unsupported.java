package peer;

/** What the library has no means for. */
final class Unsupported extends Exception {
    private static final long serialVersionUID = 1;

    Unsupported(String means) {
        super(means);
    }
}
