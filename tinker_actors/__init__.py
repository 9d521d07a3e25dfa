"""Actors on trio that train and sample LoRA models through the Tinker API."""

__version__ = "0.1.0"
