"""The service of one model: it reads, batches, runs and encodes, and knows no host."""
