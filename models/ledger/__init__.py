"""The double-entry ledger: one journal document per fact, and the wallets whose balances it moves."""
