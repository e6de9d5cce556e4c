"""Addresses that are kept out for a time."""
