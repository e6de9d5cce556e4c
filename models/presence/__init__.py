"""Who is online, and who is in a call."""
