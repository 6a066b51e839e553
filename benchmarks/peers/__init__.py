"""One small file for each kind of contestant: the same answers, served the way that server is meant to be used."""
