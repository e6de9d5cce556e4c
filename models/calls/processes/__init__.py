"""Which processes live."""
