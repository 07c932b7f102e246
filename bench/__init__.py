"""The benchmark: our server beside others, row by row, on one machine in turn."""
