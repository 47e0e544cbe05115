"""Every figure that this project claims, measured side by side with its peers in one run."""
