"""Who writes to one another, and how far each of them has read."""
