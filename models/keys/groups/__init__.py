"""Encrypted groups (MLS): which commit makes which epoch, and nothing of what they say."""
