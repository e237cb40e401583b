"""Pipelines over the data sets of Ray Data: lazy in, lazy out."""
