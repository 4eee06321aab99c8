"""The modules and the differentiation that are ours."""
