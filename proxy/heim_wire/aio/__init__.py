"""The wire protocol on asyncio: one session on one transport, one stream joined with one socket."""
