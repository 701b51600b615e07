"""The client's loss: one file per loss, with the class of that name."""
