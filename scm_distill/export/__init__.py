"""The trained student as a folder that stock diffusers loads, and back."""
