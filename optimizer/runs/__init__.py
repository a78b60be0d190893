"""One run, and many of one command."""
