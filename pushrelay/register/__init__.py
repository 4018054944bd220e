"""The events register, ack and unregister."""
