"""Derivatives of any torch module: F with its exact time derivative, and attention with a forward derivative."""
