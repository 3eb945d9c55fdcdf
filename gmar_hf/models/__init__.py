"""What can be known of a user's model, and done to it for a while."""
