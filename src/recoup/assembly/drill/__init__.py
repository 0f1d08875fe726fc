"""Drills: what is rehearsed, in which sandbox, by which steps, and what is written down of it."""
