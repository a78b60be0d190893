"""A model directory: its configuration, its weights as a lazy stream, and what each of them is for."""
