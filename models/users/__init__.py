"""People: how others see them, whom they have blocked, and how they are found."""
