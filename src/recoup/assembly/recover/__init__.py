"""Recoveries of production, and the kit for a blank machine."""
