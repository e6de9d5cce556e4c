"""Written messages between people."""
