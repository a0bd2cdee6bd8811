"""The data of a run: the split, views of it, and the Protocol of a data set."""
