"""Rows -> means with intervals, tables and files. Reads result files alone."""
