"""Worker processes: tickets in, batches through the executor, outcomes into the ledger, and a supervisor above them."""
