"""The predictions of a model: how to read them, posterior samples, ensembles, the whole pool."""
