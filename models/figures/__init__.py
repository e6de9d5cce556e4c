"""Figures of days: what was earned, and how much was talked."""
