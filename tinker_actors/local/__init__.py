"""The embedded Tinker service: a small real model, its training and sampling, and the application."""
