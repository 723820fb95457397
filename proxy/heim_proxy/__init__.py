"""heim-proxy: the identity-aware reverse proxy that listens on 443."""
