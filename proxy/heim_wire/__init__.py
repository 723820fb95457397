"""The tunnel protocol, sans-IO. It arrives with the tunnel; ARCHITECTURE.md keeps its place."""
