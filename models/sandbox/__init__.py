"""A payment gateway and a bank that collect nothing: what the sandbox knows, in the database like a real one's."""
