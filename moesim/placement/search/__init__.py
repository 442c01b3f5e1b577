"""What strategies search with: compiled exchanges, numbers of replicas, programs. Nothing here is a strategy."""
