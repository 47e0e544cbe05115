"""The policies, the limiter, the breaker and the batch beside other libraries."""
