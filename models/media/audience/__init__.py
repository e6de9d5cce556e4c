"""Who may see a file: whoever may see a message that has it."""
