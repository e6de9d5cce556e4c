"""What can be read of a wallet at home: statements of a period as files, and where the money went."""
