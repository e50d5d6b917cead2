"""Telemetry stream to totals: adds what every worker says exactly once, keeps a bounded history, and serves it."""
