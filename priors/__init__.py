"""Priors, an attacker's knowledge of images in general: generators, denoisers and inverters. One file each."""
