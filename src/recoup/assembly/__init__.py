"""The only place that knows which concrete parts are used: from a plan to engines, stores and repositories."""
