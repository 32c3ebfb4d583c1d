"""jaxdog: generative dogs in JAX."""

__version__ = "0.1.0"
