"""What an artifact is on disk: one file a format, and the one table that names them."""

from optimizer.formats import dense, packed

FORMATS = {"dense": dense, "packed": packed}
