"""The state of every job: the only truth. ``port`` says what a ledger does, ``redis`` does it with Lua scripts."""
