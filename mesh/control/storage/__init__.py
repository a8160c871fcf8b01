"""Control's database and its tables."""
