"""What lies on disk: names and places, typed contents, atomic writes, and what may leave this machine."""
