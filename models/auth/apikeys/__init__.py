"""API keys: how another server acts for an account, within scopes."""
