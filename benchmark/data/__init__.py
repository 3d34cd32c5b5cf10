"""Data: sources (``load``), batches (``loader``) and common corruptions (``corruptions``)."""
