"""Who may be here, and as what: bans and roles."""
