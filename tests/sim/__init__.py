"""``make sim``: seeded histories of paid calls through the real services, with faults, beside a model."""
