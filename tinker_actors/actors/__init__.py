"""Tinker's behaviour as actors: kernel x protocol x transport."""
