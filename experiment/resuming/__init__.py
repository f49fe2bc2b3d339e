"""Runs that continue from a checkpoint, with the same settings or others, and runs that start from its weights."""
