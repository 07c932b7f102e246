"""Where jobs and events are delivered, and whom the application has to ask before."""
