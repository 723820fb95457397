"""What agents cost, and ten thousand of them: `python -m bench agents`. See bench/README.md."""
