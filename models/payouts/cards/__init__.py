"""Cards that a gateway keeps for who has paid with them."""
