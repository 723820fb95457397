"""Who is asking: login, sessions, and the assertion we give to upstreams."""
