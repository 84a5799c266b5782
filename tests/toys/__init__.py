"""Families as small as can be: one for each capability, one with all of them. Tests drop them into a copy."""
