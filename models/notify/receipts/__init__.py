"""What became of the pushes that a provider took."""
