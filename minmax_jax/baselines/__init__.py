"""Methods to compare min-max entropy with, one file each."""
