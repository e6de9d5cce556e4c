"""Payments: money on its way in through a gateway."""
