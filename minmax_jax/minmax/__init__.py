"""Min-max entropy: the method of arXiv 1907.12934."""
