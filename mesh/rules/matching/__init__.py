"""Whether a rule wants an image: patterns, filters, and the index that finds the candidate rules."""
