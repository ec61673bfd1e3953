"""`--mode export`: a trained model for other programs."""
