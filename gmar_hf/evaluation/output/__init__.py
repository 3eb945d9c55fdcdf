"""Tables, page and pictures of an evaluation."""
