"""The three kinds: typed models from which the CRDs are generated, and which read every object again before it is acted upon."""
