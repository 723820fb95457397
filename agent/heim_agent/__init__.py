"""heim-agent dials out to the proxy and serves streams to local ports. Arrives with the agent."""
