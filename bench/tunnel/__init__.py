"""What the tunnel costs beside others: `python -m bench tunnel`. See bench/README.md."""
