"""The board: means with intervals, tables and a page, made from the files of runs alone."""
