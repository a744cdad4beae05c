"""What `prepare_data` runs once: a dataset as downloaded becomes checked records."""
