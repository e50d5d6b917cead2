"""The demo: two real workloads on two worker processes of this machine, and what their reports say."""
