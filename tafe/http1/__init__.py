"""HTTP/1.1 as bytes: parsing and rendering without I/O, clock or greenlets."""
