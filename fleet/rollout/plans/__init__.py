"""Plans: their types, how they are read, and what is refused of them."""
