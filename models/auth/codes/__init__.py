"""Codes sent by e-mail or SMS: for a forgotten password, and to show that an address is read."""
