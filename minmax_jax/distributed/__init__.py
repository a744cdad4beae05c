"""Several devices and several hosts: nothing else counts devices."""
