"""A trained model on image files: masks, classes, regions and outlines, written to a folder."""
