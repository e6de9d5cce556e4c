"""Descriptions and candidates kept for clients that poll."""
