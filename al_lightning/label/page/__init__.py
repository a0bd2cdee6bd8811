"""The labeling page: a server, and what the browser shows."""
