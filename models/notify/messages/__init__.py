"""Pushes about messages: one for each person and conversation."""
