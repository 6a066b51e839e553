"""The ground truth as a program: see __main__.py."""
