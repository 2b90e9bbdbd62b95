"""Generates and checks the documentation: see __main__.py."""
