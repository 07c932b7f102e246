"""What an upload is. Pure: no I/O, no await, no framework."""
