"""The tunnel protocol, sans-IO; only `aio` knows asyncio. Reference: docs/reference/wire.md."""
