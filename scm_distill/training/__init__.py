"""The run: teacher and data in, trained student out."""
