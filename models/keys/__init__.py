"""Public keys of devices, so that people can write to each other what this server cannot read."""
