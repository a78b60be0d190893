"""The figures of runs: rows, the files that keep them, the gates that judge them."""
