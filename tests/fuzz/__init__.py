"""Hostile payloads for the door of sockets, made from the catalogue: ``make fuzz``."""
