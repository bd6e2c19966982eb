"""Files and URLs opened safely, and their names."""
