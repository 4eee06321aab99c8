"""What a run needs of memory, before and after it runs out."""
