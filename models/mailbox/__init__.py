"""The durable log of every user: what a device missed, in order, by a rising number."""
