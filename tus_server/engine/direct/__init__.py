"""Direct uploads: clients send parts to the store by themselves, this server keeps the books."""
