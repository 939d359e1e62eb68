"""From sources to batches: reading, checking, splitting, encoding, batching."""
