"""What is known of how a model answers, from calibration texts."""
