"""The tunnels that are compared, each started with an ordinary configuration."""
