"""Distributions of negative classes, with the log of how often each class is expected."""
