"""File work shared by whatever keeps bytes on a local disk."""
