"""Measure an artifact against its original: agreement, speed and memory, in processes of their own."""
