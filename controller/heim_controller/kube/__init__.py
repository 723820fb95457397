"""The one door to the Kubernetes API: plain dicts over kubernetes.aio."""
