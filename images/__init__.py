"""The images: what they are made of (`Dockerfile`), how they are built, measured and pushed (`python -m images`, `make images`)."""
