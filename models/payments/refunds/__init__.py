"""Money of payments given back through the gateway that collected it."""
