"""Waking devices that sleep: to-dos for pushes, kept before anything is sent."""
