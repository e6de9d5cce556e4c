"""Programs on loopback that speak the documented protocols of those we send to, errors included."""
