"""heim-agent dials out to the proxy and serves its streams from local ports and sockets."""
