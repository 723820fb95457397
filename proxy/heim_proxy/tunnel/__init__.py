"""TCP over HTTPS: who may open a stream to which backend, and the relay once it is open."""
