"""Real servers for tests: each is started on a free loopback port with its data in a temporary folder.

Every server is ended through the process id it was started with, and nothing is ended by name.
"""
