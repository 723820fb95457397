"""Agents: who they are, which are connected, and streams through them."""
