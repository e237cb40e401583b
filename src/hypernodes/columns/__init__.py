"""Columns of results: what values are in tables and files, and tables that get further columns."""
