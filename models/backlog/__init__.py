"""What waits in the database to be done: how much of it, and for how long."""
