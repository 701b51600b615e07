"""Priors: generators, an attacker's knowledge of images in general. One file each."""
