"""What happens to an upload: one module a verb, over the ports."""
