"""What Heim costs beside nginx, haproxy and caddy: `python -m bench`. See bench/README.md."""
