"""What a client does against leakage. One file each; the file's name is the name on the command line."""
