"""The trail: what administrators and operators have done, in rows that are chained and never changed."""
