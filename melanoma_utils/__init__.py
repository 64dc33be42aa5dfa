"""Melanoma classification of dermoscopy images: the shared module under the notebooks, the tests and the app."""
