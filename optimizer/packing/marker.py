"""What marks an artifact as packed in its config.json."""

METHOD = "optimizer_packed"
FORMAT_VERSION = 1
