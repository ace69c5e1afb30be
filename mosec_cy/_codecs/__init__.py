"""Bodies to objects and back, and what the annotations of `forward` say of both."""
