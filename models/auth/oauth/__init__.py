"""Signing in with Google and Facebook: ID tokens of OpenID Connect."""
