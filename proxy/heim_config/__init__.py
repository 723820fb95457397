"""The configuration: one model, loaded from YAML with every mistake reported at once."""
