"""The few durable facts that must survive a restart."""
