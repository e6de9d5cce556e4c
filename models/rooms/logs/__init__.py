"""The logs of room calls: one line for each session of a room."""
