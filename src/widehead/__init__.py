"""Exact training of very wide output layers."""
