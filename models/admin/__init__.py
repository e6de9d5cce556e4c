"""Sign-ins to the administrators' pages."""
