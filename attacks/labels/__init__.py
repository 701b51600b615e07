"""Which labels a batch has, read from the update: one file per published rule, plain functions on tensors."""
