"""The command line, one module for each concern; the commands themselves are in `commands`."""
