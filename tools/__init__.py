"""Maintenance of the book: set-up, running and checking notebooks, building pages. No reader needs it."""
