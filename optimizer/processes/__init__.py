"""Child processes and their end, and who may use the machine."""
