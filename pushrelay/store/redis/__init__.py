"""Publications in a Redis that several relays share."""
