"""GET /metrics: the relay's own metrics, in the formats of Prometheus."""
