"""What a trained model is worth: scores, pictures, answers."""
