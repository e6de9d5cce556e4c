"""Sign-ins, and the notes by which every process learns that some are over."""
