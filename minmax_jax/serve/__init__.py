"""A page on this machine on which one tries a trained model."""
