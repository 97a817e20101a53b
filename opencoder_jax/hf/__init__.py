"""Hugging Face: weight names and layouts, export, import, safetensors, the model card."""
