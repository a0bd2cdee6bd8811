"""What a model says of rows: reading its predictions, posterior samples, ensembles, the pool."""
