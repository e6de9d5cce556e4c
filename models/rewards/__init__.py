"""Points for calls that were paid for, and call credits for points."""
