"""The HTTP/1.1 data plane: our own asyncio protocols around llhttp."""
