"""The digits teacher and data of the newcomer's first run; `make_digits` reproduces both."""
