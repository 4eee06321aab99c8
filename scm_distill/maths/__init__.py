"""The mathematics of sCM: tensors in, tensors out, torch only."""
