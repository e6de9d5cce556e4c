"""Pushes about calls: rings, and what follows them."""
