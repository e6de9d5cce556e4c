"""Wallets as people use them: a PIN, money in, money to others, the statement."""
