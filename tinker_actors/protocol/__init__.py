"""Decisions: pure functions and tables over wire types. Time and chance are arguments; nothing here waits."""
