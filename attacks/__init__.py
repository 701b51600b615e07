"""Attacks: one file per published method with its small variants; a class's `name` is its name on the command line."""
