"""What the proxy tells its operator: access log, audit, metrics, health."""
