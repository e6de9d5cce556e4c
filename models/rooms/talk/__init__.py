"""What is written in rooms."""
