"""Several processes: what concerns the sockets at another one goes there at once, by Redis."""
