"""Adversarially domain-adaptive latent diffusion for unsupervised semantic segmentation (ICCLD)."""

__version__ = "0.1.0"
