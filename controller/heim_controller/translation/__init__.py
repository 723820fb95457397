"""Kubernetes objects into the proxy's configuration: pure."""
