"""Charging: tariffs, reservations, settlement. The prices themselves are ``models/calls/tariff.py``."""
