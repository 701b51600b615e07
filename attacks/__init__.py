"""Attacks: one file per published method; the file's name is the name on the command line."""
