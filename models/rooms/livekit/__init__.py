"""Rooms past the mesh: LiveKit carries the media, and tells who is there."""
