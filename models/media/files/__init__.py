"""Where the bytes are: GridFS, in the default adapter."""
