"""The record: what is written about a run, and everything that reads it back."""
