"""Read topics that every region has: `region_tables` into memory, `group_reader` shared among several controls."""
