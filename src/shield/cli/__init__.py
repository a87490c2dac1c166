"""The command line; importing it loads nothing heavy."""
