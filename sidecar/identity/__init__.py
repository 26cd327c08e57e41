"""Verified claims to Principal and Actor; challenges and resource metadata as text."""
