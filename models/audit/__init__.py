"""The audit: the invariants of the money, checked over the whole database by reading it anew from the beginning."""
