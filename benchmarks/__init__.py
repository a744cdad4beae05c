"""What the speed figures and the recorded numbers come from."""
