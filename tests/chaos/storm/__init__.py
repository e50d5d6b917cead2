"""The storms: each injects one kind of fault under load and returns a row of the table in docs/reliability.md.

A storm proves three things: that its fault really happened (``proof``), what the checker found (``verdict``), and its own
bound (``bound``), if it has one. ``Scale`` makes it short for CI or long by hand; the seed is printed and repeats a run.
"""
