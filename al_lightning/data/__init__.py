"""The data of a run: data sets and their items, the split and its labels, the loaders."""
