"""Copies brought to life in sandboxes, and how far each is proven."""
