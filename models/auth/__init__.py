"""Accounts: who may come in, from which device, and for how long."""
