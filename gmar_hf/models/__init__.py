"""What a user's model says of itself, and what is done to it for a while and taken back."""
