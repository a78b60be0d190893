"""Engines other than torch: less work before the export, the export, and the running of what it made."""
