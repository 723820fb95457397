"""heim-tunnel: any TCP over HTTPS for the person at the terminal. Arrives with the tunnel."""
