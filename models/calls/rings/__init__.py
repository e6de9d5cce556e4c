"""How often a phone may be made to ring."""
