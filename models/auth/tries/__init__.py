"""Wrong tries, counted before anything is looked at."""
