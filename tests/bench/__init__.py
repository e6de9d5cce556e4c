"""How fast a server is on this machine: ``python -m tests.bench`` (``make bench``). Measures, asserts nothing."""
