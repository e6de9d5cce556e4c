"""What the program runs on: the frame, the database process, the clock, the wires."""
