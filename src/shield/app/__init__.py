"""Composition: the parts put together into processes."""
