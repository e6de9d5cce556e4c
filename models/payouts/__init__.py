"""Money out: withdrawals to bank accounts by way of a gateway, those accounts, and cards that a gateway keeps."""
