"""The collector's web pages and API. The only place that knows the web framework."""
