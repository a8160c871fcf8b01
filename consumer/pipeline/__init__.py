"""From the log to a task's end and back to the log: consuming, lanes, attempts, parking, completions."""
