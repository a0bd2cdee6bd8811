"""A page to label a query on, in a browser on this machine: ``python -m al_lightning.label``."""
