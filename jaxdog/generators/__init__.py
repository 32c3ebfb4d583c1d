"""Trained generators: class `Generator`, its export format, model cards, and the Hugging Face Hub."""
