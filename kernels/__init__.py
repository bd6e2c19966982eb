"""The Triton backend of melcap; imported by the registry alone, and only where it could run."""
