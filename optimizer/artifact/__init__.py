"""Artifacts: written whole or not at all, with a record of how they were made."""
