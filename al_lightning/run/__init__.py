"""A run on disk: its journal, records, folder and lock."""
