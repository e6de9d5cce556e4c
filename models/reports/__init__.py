"""Reports of messages and of people, for those who keep the server."""
