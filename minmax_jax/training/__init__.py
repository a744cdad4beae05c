"""The kit that training steps of any method share."""
