"""Copies and instants back in place: into volumes, servers, folders."""
