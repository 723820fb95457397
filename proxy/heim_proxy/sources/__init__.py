"""Where configuration comes from: a file, or what a test hands in."""
