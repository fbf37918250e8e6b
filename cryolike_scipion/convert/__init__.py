"""Scipion's objects and the engine's files, each written as the other.

The only place where poses, CTFs and locations change frame; it knows the engine by its files alone.
"""
