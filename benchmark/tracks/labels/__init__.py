"""Tracks of label methods, a YAML file each; see `benchmark.tracks.label_track`."""
