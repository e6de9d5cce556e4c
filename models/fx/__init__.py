"""Conversions between currencies: rates, quotes, and the posting of one."""
