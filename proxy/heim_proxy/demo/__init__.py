"""`heim-proxy demo`: an identity provider and an application on loopback, nothing to install."""
