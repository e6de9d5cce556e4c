"""Somebody's conversations as a list, and what is unread in them."""
