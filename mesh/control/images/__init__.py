"""Image locations: which digest each place holds under a tag."""
