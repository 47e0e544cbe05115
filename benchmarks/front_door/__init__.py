"""What a front door adds to a call of a model: ours, a bare reverse proxy, and litellm's proxy."""
