"""The sync log: one entry for each task, how it is written, searched and summed up."""
