"""People's pages and their API: an ordinary aiohttp application behind the edge."""
