"""Applications run from the checkout: hello (ten lines), bidder (a real one), zoo (code that blocks)."""
