"""Labels from people: their answers, files to fill in, and ``python -m al_lightning.label``."""
