"""Faults under load: what the official client sees of them, and what is in the database afterwards."""
