"""Copies and streams: what is taken, when, from where, and what is kept of it."""
