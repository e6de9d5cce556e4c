"""Backup and restore: a database at one instant in one file, and back into an empty one."""
