"""The only Ray code: session, object store, Ray Train, Ray Tune."""
