"""The tunnel protocol, sans-IO. Arrives with the tunnel; see docs/adr/0002-one-tunnel-protocol.md."""
