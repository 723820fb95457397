"""Who may do what: pure decisions on values."""
