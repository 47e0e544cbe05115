"""A whole request over HTTP beside bare HTTP clients."""
