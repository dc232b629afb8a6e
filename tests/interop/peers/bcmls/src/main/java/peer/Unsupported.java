package peer;

/** Reports what the library cannot do. */
final class Unsupported extends Exception {
    private static final long serialVersionUID = 1;

    Unsupported(String means) {
        super(means);
    }
}
