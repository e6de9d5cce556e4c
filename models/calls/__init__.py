"""One-to-one calls: the machine (rules), its guarded memory (store), the live switchboard, and the verbs (service)."""
