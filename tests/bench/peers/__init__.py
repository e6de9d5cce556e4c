"""This server beside others that relay the same frames between the same clients."""
