"""The bank accounts that people withdraw to."""
