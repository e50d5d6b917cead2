"""What each worker process says about itself once a second, and the Redis stream that carries it."""
