"""The texts of a recipe: read, shared out between measuring and calibrating, tokenized."""
