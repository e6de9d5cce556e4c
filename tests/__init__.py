"""Tests of Ringmeter: rules without I/O, services on a real mongod, doors with real clients."""

import os
import sys

# Images forbid Python to keep what it has compiled. Here hundreds of processes would each compile all of it anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
