"""Rows made readable."""
