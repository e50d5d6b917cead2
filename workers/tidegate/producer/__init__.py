"""From an iterable to batches in the ledger: split lazily, encode, append in chunks, and stop at the high-water mark."""
