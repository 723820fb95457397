"""The tunnel protocol, sans-IO. Arrives with the tunnel; its place is in ARCHITECTURE.md."""
