"""Frozen values and pure rules: what travels between the parts. No input or output happens here."""
