"""Requests as bytes, each beside what a server has to make of it; `case.py` describes the two files of a case."""
