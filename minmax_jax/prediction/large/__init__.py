"""Images that are predicted tile by tile, with arrays on the disk."""
