"""Array operations that the networks need in a form that JAX does not bring."""
