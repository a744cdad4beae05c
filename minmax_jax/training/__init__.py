"""What training and inference of any method share."""
