"""`heim-proxy demo`: an identity provider and an application on loopback, to look at Heim without installing anything."""
