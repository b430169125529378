"""Views of the change stream: search and analytics (CQRS)."""
