"""The client's side: data sets, models, and the update that a client shares."""
