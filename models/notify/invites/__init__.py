"""Pushes about invitations to rooms."""
