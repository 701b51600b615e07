"""Generators: what an attacker knows of images in general."""
