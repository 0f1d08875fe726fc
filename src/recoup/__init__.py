"""Recoup: a disaster recovery plan that runs itself and proves itself."""

__version__ = "0.1.0"
