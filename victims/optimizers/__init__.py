"""What a client takes its local steps with: one file per optimizer, with the class of that name."""
