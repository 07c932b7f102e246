"""An S3 server that throws bodies away: a process of its own, as cheap as Python allows."""
