"""How control reads topics that every region has."""
