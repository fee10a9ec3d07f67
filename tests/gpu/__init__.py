"""What only a card can show, one check a function: `make test-gpu` runs them all, with pytest or without."""
