"""Measurements of TAFE beside its peers, on one machine, in one run. See README.md in this directory."""
