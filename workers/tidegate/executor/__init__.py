"""The Python face of the C executor."""
