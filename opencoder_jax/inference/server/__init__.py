"""An OpenAI-compatible HTTP server over the inference engine: `opencoder serve`."""
