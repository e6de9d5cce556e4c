"""What is true: the rules, the stores that guard them, and the verbs that handlers call."""
